/* SPDX-License-Identifier: Apache-2.0 */
#include "value.h"

#include <string.h>

static JSAtom length_name, to_json_name;
static JSValue is_view; /* ArrayBuffer.isView */

bool value_start(JSContext *ctx) {
    length_name = JS_NewAtom(ctx, "length");
    to_json_name = JS_NewAtom(ctx, "toJSON");
    JSValue global = JS_GetGlobalObject(ctx);
    JSValue array_buffer = JS_GetPropertyStr(ctx, global, "ArrayBuffer");
    is_view = JS_GetPropertyStr(ctx, array_buffer, "isView");
    JS_FreeValue(ctx, array_buffer);
    JS_FreeValue(ctx, global);
    return JS_IsFunction(ctx, is_view);
}

void value_stop(JSContext *ctx) {
    JS_FreeAtom(ctx, length_name);
    JS_FreeAtom(ctx, to_json_name);
    JS_FreeValue(ctx, is_view);
}

/* ---- To msgpack -------------------------------------------------------------------------------------------------- */

static value_result write_at(JSContext *ctx, gw_out *out, JSValueConst value, uint32_t depth);

/* The engine writes half a surrogate pair as three bytes that are no UTF-8; U+FFFD has three bytes, too. */
static void mend_surrogates(uint8_t *text, size_t len) {
    for (size_t i = 0; i + 2 < len; i++) {
        if (text[i] == 0xed && text[i + 1] >= 0xa0) {
            text[i] = 0xef;
            text[i + 1] = 0xbf;
            text[i + 2] = 0xbd;
        }
    }
}

static value_result write_text(JSContext *ctx, gw_out *out, JSValueConst text) {
    size_t len;
    const char *bytes = JS_ToCStringLen(ctx, &len, text);
    if (!bytes) return VALUE_THROWN;
    gw_str(out, bytes, len);
    if (!out->full) mend_surrogates(out->at - len, len);
    JS_FreeCString(ctx, bytes);
    return VALUE_WRITTEN;
}

static void write_number(gw_out *out, double d) {
    if (d >= -0x1p53 && d <= 0x1p53 && d == (double)(int64_t)d) gw_int(out, (int64_t)d);
    else if (d - d == 0) gw_f64(out, d);
    else gw_nil(out); /* NaN or infinite */
}

static value_result write_big(JSContext *ctx, gw_out *out, JSValueConst value) {
    const char *text = JS_ToCString(ctx, value);
    if (!text) return VALUE_THROWN;
    const char *at = text + (*text == '-');
    uint64_t n = 0;
    bool fits = true;
    for (; *at && fits; at++) {
        uint32_t digit = (uint32_t)(*at - '0');
        fits = n < UINT64_MAX / 10 || (n == UINT64_MAX / 10 && digit <= UINT64_MAX % 10);
        n = n * 10 + digit;
    }
    if (*text == '-') fits = fits && n <= (uint64_t)INT64_MAX + 1;
    if (!fits) gw_cstr(out, text);
    else if (*text == '-') gw_int(out, (int64_t)(0 - n));
    else gw_uint(out, n);
    JS_FreeCString(ctx, text);
    return VALUE_WRITTEN;
}

/* Items of an array or typed array; -1 with an exception pending. */
static int64_t length_of(JSContext *ctx, JSValueConst array) {
    int64_t length = -1;
    JSValue value = JS_GetProperty(ctx, array, length_name);
    if (JS_IsException(value) || JS_ToInt64(ctx, &length, value)) length = -1;
    else if (length < 0 || length > UINT32_MAX) {
        JS_ThrowRangeError(ctx, "an array's length is out of range");
        length = -1;
    }
    JS_FreeValue(ctx, value);
    return length;
}

static value_result write_array(JSContext *ctx, gw_out *out, JSValueConst array, uint32_t depth) {
    int64_t length = length_of(ctx, array);
    if (length < 0) return VALUE_THROWN;
    gw_array(out, (uint32_t)length);
    for (uint32_t i = 0; i < (uint32_t)length && !out->full; i++) {
        JSValue item = JS_GetPropertyUint32(ctx, array, i);
        value_result result = write_at(ctx, out, item, depth + 1);
        JS_FreeValue(ctx, item);
        if (result == VALUE_THROWN) return VALUE_THROWN;
        if (result == VALUE_ABSENT) gw_nil(out);
    }
    return VALUE_WRITTEN;
}

/* One property; what has no value leaves no trace. */
static value_result write_pair(JSContext *ctx, gw_out *out, JSValueConst object, JSAtom name, uint32_t depth) {
    JSValue value = JS_GetProperty(ctx, object, name);
    if (JS_IsException(value)) return VALUE_THROWN;
    if (JS_IsUndefined(value)) return VALUE_ABSENT;
    uint8_t *mark = gw_mark(out);
    JSValue key = JS_AtomToString(ctx, name);
    value_result result = JS_IsException(key) ? VALUE_THROWN : write_text(ctx, out, key);
    JS_FreeValue(ctx, key);
    if (result == VALUE_WRITTEN) result = write_at(ctx, out, value, depth + 1);
    JS_FreeValue(ctx, value);
    if (result == VALUE_ABSENT) gw_rewind(out, mark);
    return result;
}

static value_result write_object(JSContext *ctx, gw_out *out, JSValueConst object, uint32_t depth, uint32_t *count) {
    JSPropertyEnum *names;
    uint32_t n;
    if (JS_GetOwnPropertyNames(ctx, &names, &n, object, JS_GPN_STRING_MASK | JS_GPN_ENUM_ONLY)) return VALUE_THROWN;
    value_result result = VALUE_WRITTEN;
    uint8_t *head = gw_map_open(out);
    *count = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (result != VALUE_THROWN && !out->full) {
            result = write_pair(ctx, out, object, names[i].atom, depth);
            *count += result == VALUE_WRITTEN;
        }
        JS_FreeAtom(ctx, names[i].atom);
    }
    js_free(ctx, names);
    gw_close(out, head, *count);
    return result == VALUE_THROWN ? VALUE_THROWN : VALUE_WRITTEN;
}

/* Whether a value is an array, a typed array or a Buffer; -1 with an exception pending. */
static int is_list(JSContext *ctx, JSValueConst object) {
    int is_array = JS_IsArray(ctx, object);
    if (is_array) return is_array;
    JSValue said = JS_Call(ctx, is_view, JS_UNDEFINED, 1, &object);
    if (JS_IsException(said) || !JS_ToBool(ctx, said)) return JS_IsException(said) ? -1 : 0;
    JSValue length = JS_GetProperty(ctx, object, length_name); /* a DataView is a view without one */
    int is = JS_IsException(length) ? -1 : JS_IsNumber(length);
    JS_FreeValue(ctx, length);
    return is;
}

/* What an object says of itself by toJSON; JS_UNINITIALIZED where it says nothing. */
static JSValue own_words(JSContext *ctx, JSValueConst object) {
    JSValue to_json = JS_GetProperty(ctx, object, to_json_name);
    JSValue said = JS_UNINITIALIZED;
    if (JS_IsException(to_json)) said = JS_EXCEPTION;
    else if (JS_IsFunction(ctx, to_json)) said = JS_Call(ctx, to_json, object, 0, NULL);
    JS_FreeValue(ctx, to_json);
    return said;
}

static value_result write_container(JSContext *ctx, gw_out *out, JSValueConst object, uint32_t depth) {
    if (depth >= VALUE_MOST_NESTING) {
        JS_ThrowRangeError(ctx, "the result is nested deeper than %d levels, or contains itself", VALUE_MOST_NESTING);
        return VALUE_THROWN;
    }
    int is_array = is_list(ctx, object);
    if (is_array < 0) return VALUE_THROWN;
    if (is_array) return write_array(ctx, out, object, depth);
    JSValue said = own_words(ctx, object);
    if (JS_IsException(said)) return VALUE_THROWN;
    if (JS_IsUninitialized(said)) {
        uint32_t count;
        return write_object(ctx, out, object, depth, &count);
    }
    /* One level deeper, since what toJSON gives may have a toJSON that gives one, and so on. */
    value_result result = write_at(ctx, out, said, JS_IsObject(said) ? depth + 1 : depth);
    JS_FreeValue(ctx, said);
    return result;
}

static value_result write_at(JSContext *ctx, gw_out *out, JSValueConst value, uint32_t depth) {
    switch (JS_VALUE_GET_NORM_TAG(value)) {
    case JS_TAG_INT: gw_int(out, JS_VALUE_GET_INT(value)); return VALUE_WRITTEN;
    case JS_TAG_BOOL: gw_bool(out, JS_VALUE_GET_BOOL(value)); return VALUE_WRITTEN;
    case JS_TAG_NULL: gw_nil(out); return VALUE_WRITTEN;
    case JS_TAG_FLOAT64: write_number(out, JS_VALUE_GET_FLOAT64(value)); return VALUE_WRITTEN;
    case JS_TAG_STRING: return write_text(ctx, out, value);
    case JS_TAG_BIG_INT: return write_big(ctx, out, value);
    case JS_TAG_EXCEPTION: return VALUE_THROWN;
    case JS_TAG_OBJECT:
        return JS_IsFunction(ctx, value) ? VALUE_ABSENT : write_container(ctx, out, value, depth);
    default: return VALUE_ABSENT;
    }
}

value_result value_write(JSContext *ctx, gw_out *out, JSValueConst value) { return write_at(ctx, out, value, 0); }

value_result value_write_object(JSContext *ctx, gw_out *out, JSValueConst object, uint32_t *count) {
    return write_object(ctx, out, object, 0, count);
}

value_result value_write_raw(JSContext *ctx, gw_out *out, JSValueConst array) {
    int is_array = is_list(ctx, array);
    if (!is_array) JS_ThrowTypeError(ctx, "the encoder gave no array of bytes");
    int64_t length = is_array > 0 ? length_of(ctx, array) : -1;
    if (length < 0) return VALUE_THROWN;
    for (uint32_t i = 0; i < (uint32_t)length && !out->full; i++) {
        double byte;
        JSValue item = JS_GetPropertyUint32(ctx, array, i);
        bool is_number = JS_IsNumber(item);
        bool thrown = JS_IsException(item) || (is_number && JS_ToFloat64(ctx, &byte, item));
        JS_FreeValue(ctx, item);
        if (thrown) return VALUE_THROWN;
        /* Codecs shift bytes out of signed numbers, so that a byte may be below 0. */
        if (!is_number || !(byte >= -128 && byte <= 255) || byte != (double)(int32_t)byte) {
            JS_ThrowRangeError(ctx, "bytes[%u] is not a byte", i);
            return VALUE_THROWN;
        }
        gw_byte(out, (uint8_t)(int32_t)byte);
    }
    return VALUE_WRITTEN;
}

/* ---- From msgpack ------------------------------------------------------------------------------------------------ */

static JSValue read_at(JSContext *ctx, gw_in *in, uint32_t depth);

JSValue value_bytes(JSContext *ctx, const uint8_t *bytes, uint32_t len) {
    JSValue array = JS_NewArray(ctx);
    for (uint32_t i = 0; i < len && !JS_IsException(array); i++) {
        if (JS_DefinePropertyValueUint32(ctx, array, i, JS_NewInt32(ctx, bytes[i]), JS_PROP_C_W_E) < 0) {
            JS_FreeValue(ctx, array);
            array = JS_EXCEPTION;
        }
    }
    return array;
}

static JSValue read_array(JSContext *ctx, gw_in *in, uint32_t count, uint32_t depth) {
    JSValue array = JS_NewArray(ctx);
    for (uint32_t i = 0; i < count && !JS_IsException(array); i++) {
        JSValue item = read_at(ctx, in, depth + 1);
        if (JS_IsException(item) || JS_DefinePropertyValueUint32(ctx, array, i, item, JS_PROP_C_W_E) < 0) {
            JS_FreeValue(ctx, array);
            array = JS_EXCEPTION;
        }
    }
    return array;
}

static int read_pair(JSContext *ctx, gw_in *in, JSValueConst object, uint32_t depth) {
    gw_value key = gw_next(in);
    if (key.type != GW_T_STR) {
        JS_ThrowTypeError(ctx, "a key is not text");
        return -1;
    }
    JSValue value = read_at(ctx, in, depth + 1);
    if (JS_IsException(value)) return -1;
    JSAtom name = JS_NewAtomLen(ctx, key.text, key.len);
    /* Defined, not assigned: a key `__proto__` is a property like any other. */
    int done = JS_DefinePropertyValue(ctx, object, name, value, JS_PROP_C_W_E);
    JS_FreeAtom(ctx, name);
    return done;
}

static JSValue read_map(JSContext *ctx, gw_in *in, uint32_t count, uint32_t depth) {
    JSValue object = JS_NewObject(ctx);
    for (uint32_t i = 0; i < count && !JS_IsException(object); i++) {
        if (read_pair(ctx, in, object, depth) < 0) {
            JS_FreeValue(ctx, object);
            object = JS_EXCEPTION;
        }
    }
    return object;
}

static JSValue read_at(JSContext *ctx, gw_in *in, uint32_t depth) {
    if (depth > VALUE_MOST_NESTING) return JS_ThrowRangeError(ctx, "nested deeper than %d levels", VALUE_MOST_NESTING);
    gw_value v = gw_next(in);
    switch (v.type) {
    case GW_T_NIL: return JS_NULL;
    case GW_T_BOOL: return JS_NewBool(ctx, v.uint != 0);
    case GW_T_UINT: return v.uint <= INT32_MAX ? JS_NewInt32(ctx, (int32_t)v.uint) : JS_NewFloat64(ctx, v.f64);
    case GW_T_INT: return JS_NewInt64(ctx, v.sint);
    case GW_T_F64: return JS_NewFloat64(ctx, v.f64);
    case GW_T_STR: return JS_NewStringLen(ctx, v.text, v.len);
    case GW_T_BIN: return value_bytes(ctx, (const uint8_t *)v.text, v.len);
    case GW_T_ARRAY: return read_array(ctx, in, v.len, depth);
    case GW_T_MAP: return read_map(ctx, in, v.len, depth);
    case GW_T_END: break;
    }
    return JS_ThrowTypeError(ctx, "not msgpack");
}

JSValue value_read(JSContext *ctx, gw_in *in) { return read_at(ctx, in, 0); }

/* ---- For people -------------------------------------------------------------------------------------------------- */

size_t value_show(JSContext *ctx, char *to, size_t room, JSValueConst value) {
    size_t len = 0;
    bool as_json = JS_IsObject(value) && !JS_IsFunction(ctx, value) && !JS_IsError(ctx, value);
    JSValue text = as_json ? JS_JSONStringify(ctx, value, JS_UNDEFINED, JS_UNDEFINED) : JS_ToString(ctx, value);
    const char *bytes = JS_IsException(text) ? NULL : JS_ToCStringLen(ctx, &len, text);
    if (bytes) {
        if (len > room) len = room;
        memcpy(to, bytes, len);
        JS_FreeCString(ctx, bytes);
    } else {
        JS_FreeValue(ctx, JS_GetException(ctx));
        len = 0;
    }
    JS_FreeValue(ctx, text);
    return len;
}
