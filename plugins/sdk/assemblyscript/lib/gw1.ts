// SPDX-License-Identifier: Apache-2.0

/**
 * Write a Flux Gateway plugin (ABI gw1) in AssemblyScript.
 *
 * Owns the msgpack writer and reader; gw1_calls.ts has the buffers, exports.ts the batch loop. Knows no protocol.
 * A whole plugin:
 *
 *     import { Bytes, Code, Writer, decoder } from "gw1";
 *
 *     decoder((out: Writer, frame: Bytes, aux: u32): Code => {
 *       frame.u8();
 *       const tenths = frame.beI16();
 *       if (frame.short) return Code.Truncated; // a read past the end gives 0 and says so here
 *       out.map(2);
 *       out.key("kind").str("report");
 *       out.key("points").array(1).map(1);
 *       out.key("values").map(1);
 *       out.key("temperature").f64(<f64>tenths / 10.0);
 *       return Code.Written;
 *     });
 *
 * A decoder writes one item and returns Code.Written, or returns a code (or `fail(code, "words")`) and whatever it wrote
 * is taken back. Writing past the output is safe: the writer turns deaf and the item becomes Code.TooLarge. `aux` is the
 * number of the connection that a frame came by (0: it is only tried), or its fPort or unit id.
 *
 * An index out of range, a failed assertion and `throw` are traps: they cost the instance and count against the plugin.
 * Nothing here allocates for a frame; what a plugin allocates is collected after the call, what its globals hold stays.
 */

/** A result of a plugin's function. From `Own` on codes are the plugin's own: `<Code>(Code.Own + 1)`. */
export enum Code {
  /** Not on the wire: "I wrote it"; of a function that only reads, "all is well". */
  Written = -1,
  /** Nothing to tell, no error. */
  Drop = 0,
  Truncated = 1,
  UnknownType = 2,
  Checksum = 3,
  TooLarge = 4,
  Unsupported = 5,
  NeedsMore = 6,
  /** Bad configuration, or bad arguments of a command. */
  BadConfig = 7,
  Own = 256,
}

/** Words of the last failure. */
export let failureText: string = "";

/** A code with words for whoever reads it; 512 bytes of them are shown. */
export function fail(code: Code, text: string): Code {
  failureText = text;
  return code;
}

/** For gw1_calls.ts: what a call before said is not this one's. */
export function forgetFailure(): void {
  failureText = "";
}

/** A cursor over the frame. A read past the end gives 0 and sets `short`. The object is used again for each frame. */
@final
export class Bytes {
  at: usize = 0;
  end: usize = 0;
  short: bool = false;

  /** Look at other bytes. */
  over(at: usize, length: usize): this {
    this.at = at;
    this.end = at + length;
    this.short = false;
    return this;
  }
  /** Bytes that are left. */
  get length(): i32 {
    return <i32>(this.end - this.at);
  }
  /** The byte so many places on, without taking it; 0 past the end. */
  peek(place: i32): u8 {
    return <u32>place < <u32>this.length ? load<u8>(this.at + <usize>place) : 0;
  }
  /** Take `n` bytes and give where they lie; 0 past the end. */
  take(n: i32): usize {
    if (<u32>n > <u32>this.length) {
      this.at = this.end;
      this.short = true;
      return 0;
    }
    const taken = this.at;
    this.at += <usize>n;
    return taken;
  }
  /** Leave off the last `n` bytes. */
  drop(n: i32): void {
    if (<u32>n > <u32>this.length) this.short = true;
    else this.end -= <usize>n;
  }
  private little<T>(): T {
    const at = this.take(sizeof<T>());
    return at == 0 ? <T>0 : load<T>(at);
  }
  private big<T>(): T {
    const at = this.take(sizeof<T>());
    return at == 0 ? <T>0 : bswap<T>(load<T>(at));
  }
  u8(): u8 {
    return this.little<u8>();
  }
  i8(): i8 {
    return this.little<i8>();
  }
  beU16(): u16 {
    return this.big<u16>();
  }
  beI16(): i16 {
    return this.big<i16>();
  }
  beU32(): u32 {
    return this.big<u32>();
  }
  beI32(): i32 {
    return this.big<i32>();
  }
  beU64(): u64 {
    return this.big<u64>();
  }
  beI64(): i64 {
    return this.big<i64>();
  }
  beF32(): f32 {
    return reinterpret<f32>(this.big<u32>());
  }
  beF64(): f64 {
    return reinterpret<f64>(this.big<u64>());
  }
  leU16(): u16 {
    return this.little<u16>();
  }
  leI16(): i16 {
    return this.little<i16>();
  }
  leU32(): u32 {
    return this.little<u32>();
  }
  leI32(): i32 {
    return this.little<i32>();
  }
  leU64(): u64 {
    return this.little<u64>();
  }
  leI64(): i64 {
    return this.little<i64>();
  }
  leF32(): f32 {
    return this.little<f32>();
  }
  leF64(): f64 {
    return this.little<f64>();
  }
}

/** Whether bytes are UTF-8: no overlong form, no surrogate, nothing past U+10FFFF. Source: RFC 3629, section 4. */
export function isUtf8(at: usize, length: i32): bool {
  const end = at + <usize>length;
  while (at < end) {
    const first = load<u8>(at++);
    if (first < 0x80) continue;
    if (first < 0xc2 || first > 0xf4) return false;
    let more: usize = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    if (end - at < more) return false;
    const second = load<u8>(at);
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f)) return false;
    if ((first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f)) return false;
    for (; more > 0; more--) if ((load<u8>(at++) & 0xc0) != 0x80) return false;
  }
  return true;
}

/** Writes msgpack, or a frame's raw bytes. Past its end it writes nothing and remembers that. */
@final
export class Writer {
  /** First byte of this item or frame. */
  start: usize = 0;
  /** Where the next byte goes. */
  at: usize = 0;
  end: usize = 0;
  /** Whether something did not fit. A long loop looks, to end early. */
  full: bool = false;

  /** Write to other bytes. */
  over(start: usize, end: usize): this {
    this.start = start;
    this.at = start;
    this.end = end;
    this.full = false;
    return this;
  }
  /** Bytes written. */
  get length(): i32 {
    return <i32>(this.at - this.start);
  }
  private room(n: usize): usize {
    if (this.full || n > this.end - this.at) {
      this.full = true;
      return 0;
    }
    const taken = this.at;
    this.at += n;
    return taken;
  }
  /** Bytes as they lie in memory: of a frame, or of prepared msgpack. */
  raw(at: usize, length: i32): this {
    const to = this.room(<usize>length);
    if (to != 0) memory.copy(to, at, <usize>length);
    return this;
  }
  byte(v: u8): this {
    const to = this.room(1);
    if (to != 0) store<u8>(to, v);
    return this;
  }
  /** A number of a frame, the highest byte first: `out.big<u16>(7)`. */
  big<T>(v: T): this {
    const to = this.room(sizeof<T>());
    if (to != 0) store<T>(to, bswap<T>(v));
    return this;
  }
  private tag<T>(tag: u8, v: T): this {
    const to = this.room(1 + sizeof<T>());
    if (to != 0) {
      store<u8>(to, tag);
      store<T>(to + 1, bswap<T>(v));
    }
    return this;
  }
  nil(): this {
    return this.byte(0xc0);
  }
  bool(v: bool): this {
    return this.byte(v ? 0xc3 : 0xc2);
  }
  f64(v: f64): this {
    return this.tag<u64>(0xcb, reinterpret<u64>(v));
  }
  uint(v: u64): this {
    if (v < 0x80) return this.byte(<u8>v);
    if (v <= 0xff) return this.tag<u8>(0xcc, <u8>v);
    if (v <= 0xffff) return this.tag<u16>(0xcd, <u16>v);
    if (v <= 0xffffffff) return this.tag<u32>(0xce, <u32>v);
    return this.tag<u64>(0xcf, v);
  }
  int(v: i64): this {
    if (v >= 0) return this.uint(<u64>v);
    if (v >= -32) return this.byte(<u8>v);
    if (v >= i8.MIN_VALUE) return this.tag<i8>(0xd0, <i8>v);
    if (v >= i16.MIN_VALUE) return this.tag<i16>(0xd1, <i16>v);
    if (v >= i32.MIN_VALUE) return this.tag<i32>(0xd2, <i32>v);
    return this.tag<i64>(0xd3, v);
  }
  /** The head of a container or text of n items; a tag8 of 0 says that there is no form with one byte. */
  private head(short: u8, below: u32, tag8: u8, tag16: u8, n: u32): this {
    if (n < below) return this.byte(short | <u8>n);
    if (n <= 0xff && tag8 != 0) return this.tag<u8>(tag8, <u8>n);
    if (n <= 0xffff) return this.tag<u16>(tag16, <u16>n);
    return this.tag<u32>(tag16 + 1, n);
  }
  /** `n` pairs follow, each a `key` and a value. */
  map(n: u32): this {
    return this.head(0x80, 16, 0, 0xde, n);
  }
  /** `n` values follow. */
  array(n: u32): this {
    return this.head(0x90, 16, 0, 0xdc, n);
  }
  str(text: string): this {
    const bytes = String.UTF8.byteLength(text);
    this.head(0xa0, 32, 0xd9, 0xda, bytes);
    const to = this.room(bytes);
    if (to != 0) String.UTF8.encodeUnsafe(changetype<usize>(text), text.length, to);
    return this;
  }
  key(text: string): this {
    return this.str(text);
  }
  /** Text that lies in memory; it must be UTF-8: the host takes an item with any other text for malformed. */
  text(at: usize, length: i32): this {
    return this.head(0xa0, 32, 0xd9, 0xda, length).raw(at, length);
  }
  /** A text and a whole number behind it, so that a device's name need not be put together first. */
  numbered(text: string, number: u32): this {
    let digits: i32 = 1;
    for (let rest = number / 10; rest > 0; rest /= 10) digits++;
    const bytes = String.UTF8.byteLength(text);
    this.head(0xa0, 32, 0xd9, 0xda, bytes + digits);
    const to = this.room(<usize>(bytes + digits));
    if (to == 0) return this;
    String.UTF8.encodeUnsafe(changetype<usize>(text), text.length, to);
    for (let at = to + <usize>(bytes + digits); digits > 0; digits--, number /= 10) {
      store<u8>(--at, <u8>(0x30 + (number % 10)));
    }
    return this;
  }
  bin(at: usize, length: i32): this {
    return this.head(0, 0, 0xc4, 0xc5, length).raw(at, length);
  }
  /** Bytes as a text of lower-case hex digits. */
  hex(at: usize, length: i32): this {
    this.head(0xa0, 32, 0xd9, 0xda, 2 * length);
    for (let i: usize = 0; i < <usize>length; i++) {
      const v = load<u8>(at + i);
      this.digit(v >> 4);
      this.digit(v & 15);
    }
    return this;
  }
  private digit(v: u8): void {
    this.byte(v < 10 ? 0x30 + v : 0x57 + v);
  }
}

/** What a value is. End: nothing is left, or nothing that is msgpack of the JSON types and bin. */
export enum Type {
  End,
  Nil,
  Bool,
  /** 0 and up. */
  Uint,
  /** Below 0. */
  Int,
  F64,
  Str,
  Bin,
  Array,
  Map,
}

/**
 * Walks msgpack that the host sent: requests, configuration. `next` takes a value's head and leaves what it is in the
 * reader's fields; of an array or map `count` items (map: pairs) follow.
 */
@final
export class Reader {
  at: usize = 0;
  end: usize = 0;
  type: Type = Type.End;
  /** Bytes of Str and Bin at `text`, items of Array, pairs of Map. */
  count: u32 = 0;
  text: usize = 0;
  /** Of Uint; of Bool 0 or 1. */
  uint: u64 = 0;
  /** Of Int, and of Uint where it fits. */
  int: i64 = 0;
  /** Of F64, Uint and Int. */
  f64: f64 = 0;

  /** Read other bytes. */
  over(at: usize, length: usize): this {
    this.at = at;
    this.end = at + length;
    return this.ended();
  }
  private ended(): this {
    this.type = Type.End;
    this.count = 0;
    this.uint = 0;
    this.int = 0;
    this.f64 = 0;
    return this;
  }
  private stop(): void {
    this.at = this.end;
    this.ended();
  }
  private number(bytes: i32): u64 {
    let v: u64 = 0;
    for (; bytes > 0; bytes--) v = (v << 8) | <u64>load<u8>(this.at++);
    return v;
  }
  private unsigned(v: u64): void {
    this.type = Type.Uint;
    this.uint = v;
    this.int = <i64>v;
    this.f64 = <f64>v;
  }
  private signed(v: i64): void {
    if (v >= 0) return this.unsigned(<u64>v);
    this.type = Type.Int;
    this.int = v;
    this.f64 = <f64>v;
  }
  private container(type: Type, count: u32): void {
    this.type = type;
    this.count = count;
  }
  private bytes(type: Type, n: u64): void {
    if (n > <u64>(this.end - this.at) || (type == Type.Str && !isUtf8(this.at, <i32>n))) return this.stop();
    this.container(type, <u32>n);
    this.text = this.at;
    this.at += <usize>n;
  }
  /** Take the next value (or head) off. */
  next(): Type {
    this.ended();
    if (this.at >= this.end) return Type.End;
    const tag = load<u8>(this.at++);
    if (tag < 0x80) this.unsigned(tag);
    else if (tag < 0x90) this.container(Type.Map, tag & 15);
    else if (tag < 0xa0) this.container(Type.Array, tag & 15);
    else if (tag < 0xc0) this.bytes(Type.Str, tag & 31);
    else if (tag >= 0xe0) this.signed(<i8>tag);
    else this.long(tag);
    return this.type;
  }
  /** What follows a tag from 0xc0 to 0xdf. */
  private long(tag: u8): void {
    const bytes = followers(tag);
    if (bytes < 0 || <usize>bytes > this.end - this.at) return this.stop();
    const v = this.number(bytes);
    if (tag == 0xc0) this.type = Type.Nil;
    else if (tag <= 0xc3) {
      this.type = Type.Bool;
      this.uint = tag & 1;
    } else if (tag <= 0xc6) this.bytes(Type.Bin, v);
    else if (tag <= 0xcb) {
      this.type = Type.F64;
      this.f64 = tag == 0xca ? <f64>reinterpret<f32>(<u32>v) : reinterpret<f64>(v);
    } else if (tag <= 0xcf) this.unsigned(v);
    else if (tag == 0xd0) this.signed(<i8>v);
    else if (tag == 0xd1) this.signed(<i16>v);
    else if (tag == 0xd2) this.signed(<i32>v);
    else if (tag == 0xd3) this.signed(<i64>v);
    else if (tag <= 0xdb) this.bytes(Type.Str, v);
    else this.container(tag <= 0xdd ? Type.Array : Type.Map, <u32>v);
  }
  /** Step over one whole value, however deep; false where the input ends inside it. */
  skip(): bool {
    for (let left: u64 = 1; left > 0; left--) {
      const type = this.next();
      if (type == Type.End) return false;
      if (type == Type.Array) left += this.count;
      else if (type == Type.Map) left += 2 * <u64>this.count;
    }
    return true;
  }
  /** Whether the value is this text. */
  is(text: string): bool {
    if (this.type != Type.Str || String.UTF8.byteLength(text) != <i32>this.count) return false;
    let at = this.text;
    for (let i = 0; i < text.length; i++) {
      // Keys and commands are ASCII; any other text is compared as a string.
      const unit = text.charCodeAt(i);
      if (unit > 0x7f) return String.UTF8.decodeUnsafe(this.text, this.count) == text;
      if (load<u8>(at++) != <u8>unit) return false;
    }
    return true;
  }
  /** The value as a string of its own; "" where it is no text. */
  str(): string {
    return this.type == Type.Str ? String.UTF8.decodeUnsafe(this.text, this.count) : "";
  }
  /** The value as an integer between two bounds; `otherwise` where it is none. */
  within(least: i64, most: i64, otherwise: i64): i64 {
    const whole = this.type == Type.Int || (this.type == Type.Uint && this.uint <= <u64>i64.MAX_VALUE);
    return whole && this.int >= least && this.int <= most ? this.int : otherwise;
  }
  /** Go to the value of a string key of the map that comes next; false (and at the end) where there is no such key. */
  find(key: string): bool {
    if (this.next() == Type.Map) {
      for (let left = this.count; left > 0; left--) {
        const before = this.at;
        if (!this.skip()) break;
        const after = this.at;
        this.at = before;
        this.next();
        const found = this.is(key);
        this.at = after;
        if (found) return true;
        if (!this.skip()) break;
      }
    }
    this.stop();
    return false;
  }
  /** Read the value (or head) of a key of the map that comes next, and stay before that map. */
  get(key: string): this {
    const before = this.at;
    if (this.find(key)) this.next();
    this.at = before;
    return this;
  }
}

/** Bytes that follow a tag from 0xc0 to 0xdf and tell a number or a length; -1 for what is refused. */
function followers(tag: u8): i32 {
  switch (tag) {
    case 0xc0:
    case 0xc2:
    case 0xc3:
      return 0;
    case 0xc4:
    case 0xcc:
    case 0xd0:
    case 0xd9:
      return 1;
    case 0xc5:
    case 0xcd:
    case 0xd1:
    case 0xda:
    case 0xdc:
    case 0xde:
      return 2;
    case 0xc6:
    case 0xca:
    case 0xce:
    case 0xd2:
    case 0xdb:
    case 0xdd:
    case 0xdf:
      return 4;
    case 0xcb:
    case 0xcf:
    case 0xd3:
      return 8;
    default:
      return -1;
  }
}

export type Decode = (out: Writer, frame: Bytes, aux: u32) => Code;
export type Answer = (out: Writer, request: Reader, aux: u32) => Code;
export type Take = (from: Reader) => Code;

export let decodes: Decode | null = null;
export let encodes: Answer | null = null;
export let calls: Answer | null = null;
export let starts: Take | null = null;

/** Name the function that writes one item for a frame. */
export function decoder(decode: Decode): void {
  decodes = decode;
}
/** Name the function that reads a request and writes the bytes for the device. */
export function encoder(encode: Answer): void {
  encodes = encode;
}
/** Name the function that reads arguments and writes one msgpack value (crypto, notify, parser, algo, report). */
export function caller(call: Answer): void {
  calls = call;
}
/** Name the function that reads the map {config, host, plugin_id}; any code but Code.Written refuses the start. */
export function starter(start: Take): void {
  starts = start;
}
/** Bytes of one result; a manifest's max_output is the same where it is not said. Set it before the first call. */
export let mostOutput: u32 = 1 << 20;
export function limitOutput(bytes: u32): void {
  mostOutput = bytes;
}

/** What the host offers; each needs its word in the manifest's `[caps]` and the operator's grant. */
export namespace host {
  // @ts-ignore: decorator
  @external("gw1", "log")
  declare function gwLog(level: i32, text: usize, length: u32): void;
  // @ts-ignore: decorator
  @external("gw1", "now_ms")
  declare function gwNowMs(): i64;
  // @ts-ignore: decorator
  @external("gw1", "config")
  declare function gwConfig(key: usize, length: u32, to: usize, room: u32): i32;
  // @ts-ignore: decorator
  @external("gw1", "kv_get")
  declare function gwKvGet(key: usize, length: u32, to: usize, room: u32): i32;
  // @ts-ignore: decorator
  @external("gw1", "kv_set")
  declare function gwKvSet(key: usize, length: u32, value: usize, size: u32): i32;
  // @ts-ignore: decorator
  @external("gw1", "random")
  declare function gwRandom(to: usize, length: u32): void;

  /** caps.log: level 0 debug, 1 info, 2 warning, 3 error. Long text is cut, too many lines are dropped. */
  export function log(level: i32, text: string): void {
    const bytes = String.UTF8.encode(text);
    gwLog(level, changetype<usize>(bytes), bytes.byteLength);
  }
  /** caps.clock: epoch milliseconds UTC. */
  export function nowMs(): i64 {
    return gwNowMs();
  }
  /** caps.config: put a setting's msgpack into `to`; its length, -1 where there is none or where it does not fit. */
  export function config(key: string, to: ArrayBuffer): i32 {
    const bytes = String.UTF8.encode(key);
    return given(gwConfig(changetype<usize>(bytes), bytes.byteLength, changetype<usize>(to), to.byteLength), to);
  }
  /** caps.kv: as config, from a small store that outlives a respawn. */
  export function kvGet(key: ArrayBuffer, to: ArrayBuffer): i32 {
    return given(gwKvGet(changetype<usize>(key), key.byteLength, changetype<usize>(to), to.byteLength), to);
  }
  /** caps.kv: false where the store is full. */
  export function kvSet(key: ArrayBuffer, value: ArrayBuffer): bool {
    return gwKvSet(changetype<usize>(key), key.byteLength, changetype<usize>(value), value.byteLength) == 0;
  }
  /** caps.random: fill with unpredictable bytes, at most 4,096. */
  export function random(to: ArrayBuffer): void {
    gwRandom(changetype<usize>(to), to.byteLength);
  }
  function given(length: i32, to: ArrayBuffer): i32 {
    return length <= to.byteLength ? length : -1;
  }
}
