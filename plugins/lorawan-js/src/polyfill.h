/* SPDX-License-Identifier: Apache-2.0
 *
 * polyfill.h - JavaScript that runs before the script: what codecs expect of their network server's engine.
 *
 * A part of Node's Buffer (bytes, text encodings, numbers at offsets), TextEncoder and TextDecoder for UTF-8, atob and
 * btoa, `module` and `exports`, and methods that are younger than the engine. The preprocessor turns it into text: so
 * comments vanish, every statement ends in a semicolon, strings
 * have double quotes, and backslashes stand in strings only.
 */
#ifndef LORAWAN_JS_POLYFILL_H
#define LORAWAN_JS_POLYFILL_H

#define JAVASCRIPT(...) #__VA_ARGS__

static const char polyfill[] = JAVASCRIPT((function (global) {
    "use strict";
    const define = function (object, name, value) {
        if (!(name in object)) Object.defineProperty(object, name, {value: value, writable: true, configurable: true});
    };
    const at = function (index) {
        let place = Math.trunc(index) || 0;
        if (place < 0) place += this.length;
        return this[place];
    };
    const findLastIndex = function (wanted, self) {
        for (let i = this.length - 1; i >= 0; i--) if (wanted.call(self, this[i], i, this)) return i;
        return -1;
    };
    const findLast = function (wanted, self) {
        return this[findLastIndex.call(this, wanted, self)];
    };
    for (const kind of [Array, Object.getPrototypeOf(Uint8Array)]) {
        define(kind.prototype, "at", at);
        define(kind.prototype, "findLast", findLast);
        define(kind.prototype, "findLastIndex", findLastIndex);
    }
    define(String.prototype, "at", at);
    define(Object, "hasOwn", function (object, name) {
        return Object.prototype.hasOwnProperty.call(object, name);
    });

    const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const placeOf = {};
    for (let i = 0; i < 64; i++) placeOf[digits[i]] = i;
    placeOf["-"] = 62;
    placeOf["_"] = 63;

    const toBase64 = function (bytes) {
        let text = "";
        for (let i = 0; i < bytes.length; i += 3) {
            const group = (bytes[i] << 16) | ((bytes[i + 1] || 0) << 8) | (bytes[i + 2] || 0);
            text += digits[group >> 18] + digits[(group >> 12) & 63];
            text += i + 1 < bytes.length ? digits[(group >> 6) & 63] : "=";
            text += i + 2 < bytes.length ? digits[group & 63] : "=";
        }
        return text;
    };
    const fromBase64 = function (text) {
        const bytes = [];
        let group = 0;
        let bits = 0;
        for (const digit of text) {
            if (digit === "=") break;
            const place = placeOf[digit];
            if (place === undefined) continue;
            group = ((group << 6) | place) & 16777215;
            bits += 6;
            if (bits >= 8) bytes.push((group >> (bits -= 8)) & 255);
        }
        return bytes;
    };
    const fromLatin1 = function (text) {
        const bytes = [];
        for (let i = 0; i < text.length; i++) bytes.push(text.charCodeAt(i) & 255);
        return bytes;
    };
    const toLatin1 = function (bytes, mask) {
        let text = "";
        for (let i = 0; i < bytes.length; i++) text += String.fromCharCode(bytes[i] & mask);
        return text;
    };
    const fromUtf8 = function (text) {
        const bytes = [];
        for (const letter of text) {
            let code = letter.codePointAt(0);
            if (code >= 55296 && code < 57344) code = 65533;
            if (code < 128) bytes.push(code);
            else if (code < 2048) bytes.push(192 | (code >> 6), 128 | (code & 63));
            else if (code < 65536) bytes.push(224 | (code >> 12), 128 | ((code >> 6) & 63), 128 | (code & 63));
            else {
                bytes.push(240 | (code >> 18), 128 | ((code >> 12) & 63));
                bytes.push(128 | ((code >> 6) & 63), 128 | (code & 63));
            }
        }
        return bytes;
    };
    // Each broken sequence becomes one U+FFFD. Source: Unicode 15.0, table 3-7 and section 3.9.
    const toUtf8 = function (bytes, fatal) {
        let text = "";
        for (let i = 0; i < bytes.length;) {
            const first = bytes[i++];
            if (first < 128) {
                text += String.fromCharCode(first);
                continue;
            }
            let more = 0;
            if (first >= 194 && first < 245) more = first < 224 ? 1 : first < 240 ? 2 : 3;
            let code = more ? first & (63 >> more) : -1;
            let low = first === 224 ? 160 : first === 240 ? 144 : 128;
            let high = first === 237 ? 159 : first === 244 ? 143 : 191;
            for (; more; more--) {
                if (!(bytes[i] >= low && bytes[i] <= high)) {
                    code = -1;
                    break;
                }
                code = (code << 6) | (bytes[i++] & 63);
                low = 128;
                high = 191;
            }
            if (code < 0 && fatal) throw new TypeError("The bytes are no UTF-8");
            text += code < 0 ? String.fromCharCode(65533) : String.fromCodePoint(code);
        }
        return text;
    };
    const hexPair = new RegExp("^[0-9a-fA-F]{2}$");
    const fromHex = function (text) {
        const bytes = [];
        for (let i = 0; i + 1 < text.length; i += 2) {
            const pair = text.substr(i, 2);
            if (!hexPair.test(pair)) break;
            bytes.push(parseInt(pair, 16));
        }
        return bytes;
    };
    const toHex = function (bytes) {
        let text = "";
        for (let i = 0; i < bytes.length; i++) text += (bytes[i] + 256).toString(16).slice(1);
        return text;
    };
    const encodings = {
        "utf8": [fromUtf8, (bytes) => toUtf8(bytes, false)],
        "hex": [fromHex, toHex],
        "base64": [fromBase64, toBase64],
        "ascii": [fromLatin1, (bytes) => toLatin1(bytes, 127)],
        "latin1": [fromLatin1, (bytes) => toLatin1(bytes, 255)]
    };
    encodings["utf-8"] = encodings["utf8"];
    encodings["base64url"] = encodings["base64"];
    encodings["binary"] = encodings["latin1"];
    const encoding = function (name) {
        const found = encodings[String(name || "utf8").toLowerCase()];
        if (!found) throw new TypeError("Unknown encoding: " + name);
        return found;
    };
    const within = function (buffer, offset, size) {
        offset = offset || 0;
        if (offset < 0 || offset + size > buffer.length) throw new RangeError("Index out of range");
        return offset;
    };
    const view = function (buffer) {
        return new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    };

    class Buffer extends Uint8Array {
        static from(source, second, third) {
            if (typeof source === "string") source = encoding(second)[0](source);
            else if (source instanceof ArrayBuffer) return new Buffer(source, second, third);
            const buffer = new Buffer(source.length >>> 0);
            for (let i = 0; i < buffer.length; i++) buffer[i] = source[i];
            return buffer;
        }
        static alloc(size, fill) {
            const buffer = new Buffer(size);
            return fill ? buffer.fill(fill) : buffer;
        }
        static allocUnsafe(size) {
            return new Buffer(size);
        }
        static concat(list, total) {
            const joined = new Buffer(total === undefined ? list.reduce((sum, one) => sum + one.length, 0) : total);
            let place = 0;
            for (const one of list) {
                for (let i = 0; i < one.length && place < joined.length; i++) joined[place++] = one[i];
            }
            return joined;
        }
        static isBuffer(object) {
            return object instanceof Buffer;
        }
        static byteLength(source, name) {
            return typeof source === "string" ? encoding(name)[0](source).length : source.byteLength;
        }
        toString(name, start, end) {
            const part = start === undefined && end === undefined ? this : this.subarray(start, end);
            return encoding(name)[1](part);
        }
        toJSON() {
            return {type: "Buffer", data: Array.from(this)};
        }
        slice(start, end) {
            return this.subarray(start, end);
        }
        equals(other) {
            return this.length === other.length && this.every((byte, i) => byte === other[i]);
        }
        copy(target, to, start, end) {
            const part = this.subarray(start || 0, end);
            const room = target.subarray(to || 0);
            for (let i = 0; i < part.length && i < room.length; i++) room[i] = part[i];
            return Math.min(part.length, room.length);
        }
        write(text, offset, size, name) {
            if (typeof offset === "string") return this.write(text, 0, this.length, offset);
            if (typeof size === "string") return this.write(text, offset, this.length, size);
            return Buffer.from(text, name).subarray(0, size).copy(this, offset);
        }
        readUIntBE(offset, size) {
            let value = 0;
            offset = within(this, offset, size);
            for (let i = 0; i < size; i++) value = value * 256 + this[offset + i];
            return value;
        }
        readUIntLE(offset, size) {
            let value = 0;
            offset = within(this, offset, size);
            for (let i = size - 1; i >= 0; i--) value = value * 256 + this[offset + i];
            return value;
        }
        readIntBE(offset, size) {
            const value = this.readUIntBE(offset, size);
            return value < 2 ** (8 * size - 1) ? value : value - 2 ** (8 * size);
        }
        readIntLE(offset, size) {
            const value = this.readUIntLE(offset, size);
            return value < 2 ** (8 * size - 1) ? value : value - 2 ** (8 * size);
        }
        writeUIntBE(value, offset, size) {
            offset = within(this, offset, size);
            for (let i = size - 1; i >= 0; i--, value = Math.floor(value / 256)) this[offset + i] = value % 256;
            return offset + size;
        }
        writeUIntLE(value, offset, size) {
            offset = within(this, offset, size);
            for (let i = 0; i < size; i++, value = Math.floor(value / 256)) this[offset + i] = value % 256;
            return offset + size;
        }
        writeIntBE(value, offset, size) {
            return this.writeUIntBE(value < 0 ? value + 2 ** (8 * size) : value, offset, size);
        }
        writeIntLE(value, offset, size) {
            return this.writeUIntLE(value < 0 ? value + 2 ** (8 * size) : value, offset, size);
        }
    }
    const numbers = [
        ["UInt8", "Uint8", 1], ["Int8", "Int8", 1], ["UInt16", "Uint16", 2], ["Int16", "Int16", 2],
        ["UInt32", "Uint32", 4], ["Int32", "Int32", 4], ["Float", "Float32", 4], ["Double", "Float64", 8],
        ["BigUInt64", "BigUint64", 8], ["BigInt64", "BigInt64", 8]
    ];
    for (const [name, kind, size] of numbers) {
        for (const order of size === 1 ? [""] : ["BE", "LE"]) {
            const read = function (offset) {
                return view(this)["get" + kind](within(this, offset, size), order === "LE");
            };
            const write = function (value, offset) {
                view(this)["set" + kind](within(this, offset, size), value, order === "LE");
                return (offset || 0) + size;
            };
            for (const spelt of [name, name.replace("UInt", "Uint")]) {
                define(Buffer.prototype, "read" + spelt + order, read);
                define(Buffer.prototype, "write" + spelt + order, write);
            }
        }
    }
    define(global, "Buffer", Buffer);

    define(global, "TextEncoder", class TextEncoder {
        get encoding() {
            return "utf-8";
        }
        encode(text) {
            return new Uint8Array(fromUtf8(text === undefined ? "" : String(text)));
        }
    });
    define(global, "TextDecoder", class TextDecoder {
        constructor(label, options) {
            if (label !== undefined && !new RegExp("^\\s*utf-?8\\s*$", "i").test(label)) {
                throw new RangeError("TextDecoder knows utf-8 only, not " + label);
            }
            const fatal = Boolean(options && options.fatal);
            Object.defineProperty(this, "fatal", {value: fatal, enumerable: true});
        }
        get encoding() {
            return "utf-8";
        }
        decode(source) {
            if (source === undefined) return "";
            if (source instanceof ArrayBuffer) return toUtf8(new Uint8Array(source), this.fatal);
            return toUtf8(new Uint8Array(source.buffer, source.byteOffset, source.byteLength), this.fatal);
        }
    });
    define(global, "btoa", function (text) {
        text = String(text);
        if (new RegExp("[^\\u0000-\\u00ff]").test(text)) throw new RangeError("btoa takes characters up to U+00FF");
        return toBase64(fromLatin1(text));
    });
    define(global, "atob", function (text) {
        text = String(text).replace(new RegExp("[ \\t\\n\\f\\r]", "g"), "");
        if (new RegExp("[^A-Za-z0-9+/=]").test(text)) throw new RangeError("atob takes base64 only");
        return toLatin1(fromBase64(text), 255);
    });
    define(global, "module", {exports: {}});
    define(global, "exports", global.module.exports);
})(globalThis));

#endif
