// SPDX-License-Identifier: Apache-2.0
//! Write a Flux Gateway plugin (ABI gw1) in Zig.
//!
//! Owns the buffers of the ABI, the msgpack writer and reader, and the batch loop. Knows no protocol. A whole plugin:
//!
//!     const gw1 = @import("gw1");
//!     pub const panic = gw1.panic;
//!
//!     fn decode(out: *gw1.Writer, frame: []const u8, aux: u32) gw1.Failure!void {
//!         _ = aux;
//!         var at = gw1.Bytes{ .rest = frame };
//!         _ = try at.int(u8, .big);
//!         const tenths = try at.int(i16, .big); // a frame that ends too early is code 1
//!         out.map(2);
//!         out.key("kind");
//!         out.str("report");
//!         out.key("points");
//!         out.array(1);
//!         out.map(1);
//!         out.key("values");
//!         out.map(1);
//!         out.key("temperature");
//!         out.float(@as(f64, @floatFromInt(tenths)) / 10.0);
//!     }
//!     comptime {
//!         gw1.plugin(.{ .decode = decode });
//!     }
//!
//! A decoder writes one item and returns, or returns an error (`error.Checksum`; `gw1.fail(error.Checksum, "words")`;
//! `gw1.own(300, "words")` for a code of its own) and whatever it wrote is taken back. Writing past the output is safe:
//! the writer turns deaf and the item becomes code 4. `aux` is the number of the connection that a frame came by
//! (0: it is only tried), or its fPort or unit id.
//!
//! Modules are built ReleaseSafe: an index out of range or an overflow is a trap, which costs the instance and counts
//! against the plugin. Take numbers with `Bytes`, and wrap or saturate where the wire may say anything.
//! Nothing here allocates. The buffers' sizes are `pub const gw1_options: gw1.Options = .{ ... }` of the root file.

const std = @import("std");
const root = @import("root");

/// Bytes of the buffers.
pub const Options = struct {
    /// Input of one call; a manifest's max_input must not be larger.
    in_bytes: u32 = 256 * 1024,
    /// Output of one call, reused by the next one.
    out_bytes: u32 = 1024 * 1024,
};
const options: Options = if (@hasDecl(root, "gw1_options")) root.gw1_options else .{};

/// Traps in few bytes of code; say `pub const panic = gw1.panic;` in the root file.
pub const panic = std.debug.no_panic;

/// Why there is no result: the codes of the ABI by name, and `Own` for those from 256 on (see `own`).
pub const Failure = error{
    /// Nothing to tell, no error.
    Drop,
    Truncated,
    UnknownType,
    Checksum,
    TooLarge,
    Unsupported,
    NeedsMore,
    /// Bad configuration, or bad arguments of a command.
    BadConfig,
    Own,
};

var error_text: []const u8 = "";
var own_code: u32 = 256;

/// A failure with words for whoever reads it; they must outlive the call, and 512 bytes of them are shown.
pub fn fail(failure: Failure, text: []const u8) Failure {
    error_text = text;
    return failure;
}

/// A failure with a code of the plugin's own, from 256 on.
pub fn own(number: u32, text: []const u8) Failure {
    own_code = number;
    return fail(error.Own, text);
}

fn code(failure: Failure) u32 {
    return switch (failure) {
        error.Drop => 0,
        error.Truncated => 1,
        error.UnknownType => 2,
        error.Checksum => 3,
        error.TooLarge => 4,
        error.Unsupported => 5,
        error.NeedsMore => 6,
        error.BadConfig => 7,
        error.Own => own_code,
    };
}

/// A cursor over a frame: each read takes bytes off its front, or fails with error.Truncated.
pub const Bytes = struct {
    rest: []const u8,

    /// The next `n` bytes.
    pub fn take(self: *Bytes, n: usize) Failure![]const u8 {
        if (n > self.rest.len) return error.Truncated;
        defer self.rest = self.rest[n..];
        return self.rest[0..n];
    }
    /// The next integer, of any whole number of bytes: `at.int(i16, .big)`.
    pub fn int(self: *Bytes, comptime T: type, endian: std.builtin.Endian) Failure!T {
        const bytes = try self.take(@sizeOf(T));
        return std.mem.readInt(T, bytes[0..@sizeOf(T)], endian);
    }
    /// The next f32 or f64.
    pub fn float(self: *Bytes, comptime T: type, endian: std.builtin.Endian) Failure!T {
        const Bits = if (T == f32) u32 else u64;
        return @bitCast(try self.int(Bits, endian));
    }
};

/// Writes msgpack, or a frame's raw bytes. Past its end it writes nothing and remembers that.
pub const Writer = struct {
    buffer: []u8,
    len: usize = 0,
    /// Whether something did not fit. A long loop looks, to end early.
    full: bool = false,

    fn room(self: *Writer, n: usize) ?[]u8 {
        if (self.full or n > self.buffer.len - self.len) {
            self.full = true;
            return null;
        }
        defer self.len += n;
        return self.buffer[self.len..][0..n];
    }
    /// What was written so far, to patch a length or to sum up.
    pub fn written(self: *Writer) []u8 {
        return self.buffer[0..self.len];
    }
    /// Bytes as they are: of a frame, or of prepared msgpack.
    pub fn raw(self: *Writer, bytes: []const u8) void {
        if (self.room(bytes.len)) |to| @memcpy(to, bytes);
    }
    /// An integer of a frame.
    pub fn int(self: *Writer, comptime T: type, v: T, endian: std.builtin.Endian) void {
        if (self.room(@sizeOf(T))) |to| std.mem.writeInt(T, to[0..@sizeOf(T)], v, endian);
    }
    fn tag(self: *Writer, first: u8, comptime T: type, v: T) void {
        if (self.room(1 + @sizeOf(T))) |to| {
            to[0] = first;
            std.mem.writeInt(T, to[1..][0..@sizeOf(T)], v, .big);
        }
    }
    pub fn nil(self: *Writer) void {
        self.raw(&.{0xc0});
    }
    pub fn boolean(self: *Writer, v: bool) void {
        self.raw(&.{if (v) 0xc3 else 0xc2});
    }
    pub fn float(self: *Writer, v: f64) void {
        self.tag(0xcb, u64, @bitCast(v));
    }
    pub fn uint(self: *Writer, v: u64) void {
        if (v < 0x80) {
            self.raw(&.{@truncate(v)});
        } else if (v <= 0xff) {
            self.tag(0xcc, u8, @truncate(v));
        } else if (v <= 0xffff) {
            self.tag(0xcd, u16, @truncate(v));
        } else if (v <= 0xffff_ffff) {
            self.tag(0xce, u32, @truncate(v));
        } else self.tag(0xcf, u64, v);
    }
    pub fn sint(self: *Writer, v: i64) void {
        if (v >= 0) {
            self.uint(@bitCast(v));
        } else if (v >= -32) {
            self.raw(&.{@as(u8, @bitCast(@as(i8, @truncate(v))))});
        } else if (v >= std.math.minInt(i8)) {
            self.tag(0xd0, i8, @truncate(v));
        } else if (v >= std.math.minInt(i16)) {
            self.tag(0xd1, i16, @truncate(v));
        } else if (v >= std.math.minInt(i32)) {
            self.tag(0xd2, i32, @truncate(v));
        } else self.tag(0xd3, i64, v);
    }
    /// The head of a container or text of n items; a tag8 of 0 says that there is no form with one byte.
    fn head(self: *Writer, short: u8, below: usize, tag8: u8, tag16: u8, n: usize) void {
        if (n < below) {
            self.raw(&.{short | @as(u8, @truncate(n))});
        } else if (n <= 0xff and tag8 != 0) {
            self.tag(tag8, u8, @truncate(n));
        } else if (n <= 0xffff) {
            self.tag(tag16, u16, @truncate(n));
        } else self.tag(tag16 + 1, u32, @truncate(n));
    }
    /// `n` pairs follow, each a `key` and a value.
    pub fn map(self: *Writer, n: usize) void {
        self.head(0x80, 16, 0, 0xde, n);
    }
    /// `n` values follow.
    pub fn array(self: *Writer, n: usize) void {
        self.head(0x90, 16, 0, 0xdc, n);
    }
    /// Text must be UTF-8: the host takes an item with any other text for malformed.
    pub fn str(self: *Writer, text: []const u8) void {
        self.head(0xa0, 32, 0xd9, 0xda, text.len);
        self.raw(text);
    }
    pub fn key(self: *Writer, text: []const u8) void {
        self.str(text);
    }
    pub fn bin(self: *Writer, bytes: []const u8) void {
        self.head(0, 0, 0xc4, 0xc5, bytes.len);
        self.raw(bytes);
    }
    /// Bytes as a text of lower-case hex digits.
    pub fn hex(self: *Writer, bytes: []const u8) void {
        const digits = "0123456789abcdef";
        self.head(0xa0, 32, 0xd9, 0xda, 2 * bytes.len);
        for (bytes) |one| self.raw(&.{ digits[one >> 4], digits[one & 15] });
    }
};

/// One msgpack value. Of an array or map it is only the head: so many items (map: pairs) follow in the reader.
pub const Value = union(enum) {
    nil,
    boolean: bool,
    /// 0 and up.
    uint: u64,
    /// Below 0.
    sint: i64,
    float: f64,
    str: []const u8,
    bin: []const u8,
    array: u32,
    map: u32,

    fn signed(v: i64) Value {
        return if (v < 0) .{ .sint = v } else .{ .uint = @bitCast(v) };
    }
    /// An integer of type T, where the value is one that fits.
    pub fn as(self: Value, comptime T: type) ?T {
        return switch (self) {
            .uint => |v| std.math.cast(T, v),
            .sint => |v| std.math.cast(T, v),
            else => null,
        };
    }
    pub fn is(self: Value, text: []const u8) bool {
        return self == .str and std.mem.eql(u8, self.str, text);
    }
};

/// Walks msgpack that the host sent: requests, configuration. A copy is a place to come back to.
pub const Reader = struct {
    at: Bytes,

    pub fn of(bytes: []const u8) Reader {
        return .{ .at = .{ .rest = bytes } };
    }
    /// Take the next value (or head) off; null where nothing is left, or nothing that is msgpack of the JSON types.
    pub fn next(self: *Reader) ?Value {
        return self.read() catch {
            self.at.rest = "";
            return null;
        };
    }
    fn read(self: *Reader) Failure!Value {
        const at = &self.at;
        const first = try at.int(u8, .big);
        return switch (first) {
            0x00...0x7f => .{ .uint = first },
            0x80...0x8f => .{ .map = first & 15 },
            0x90...0x9f => .{ .array = first & 15 },
            0xa0...0xbf => self.text(first & 31),
            0xc0 => .nil,
            0xc2, 0xc3 => .{ .boolean = first == 0xc3 },
            0xc4 => .{ .bin = try at.take(try at.int(u8, .big)) },
            0xc5 => .{ .bin = try at.take(try at.int(u16, .big)) },
            0xc6 => .{ .bin = try at.take(try at.int(u32, .big)) },
            0xca => .{ .float = try at.float(f32, .big) },
            0xcb => .{ .float = try at.float(f64, .big) },
            0xcc => .{ .uint = try at.int(u8, .big) },
            0xcd => .{ .uint = try at.int(u16, .big) },
            0xce => .{ .uint = try at.int(u32, .big) },
            0xcf => .{ .uint = try at.int(u64, .big) },
            0xd0 => Value.signed(try at.int(i8, .big)),
            0xd1 => Value.signed(try at.int(i16, .big)),
            0xd2 => Value.signed(try at.int(i32, .big)),
            0xd3 => Value.signed(try at.int(i64, .big)),
            0xd9 => self.text(try at.int(u8, .big)),
            0xda => self.text(try at.int(u16, .big)),
            0xdb => self.text(try at.int(u32, .big)),
            0xdc => .{ .array = try at.int(u16, .big) },
            0xdd => .{ .array = try at.int(u32, .big) },
            0xde => .{ .map = try at.int(u16, .big) },
            0xdf => .{ .map = try at.int(u32, .big) },
            0xe0...0xff => .{ .sint = @as(i8, @bitCast(first)) },
            else => error.Unsupported,
        };
    }
    fn text(self: *Reader, n: u32) Failure!Value {
        const bytes = try self.at.take(n);
        return if (std.unicode.utf8ValidateSlice(bytes)) .{ .str = bytes } else error.Unsupported;
    }
    /// Step over one whole value, however deep; false where the input ends inside it.
    pub fn skip(self: *Reader) bool {
        var left: u64 = 1;
        while (left > 0) {
            left -= 1;
            switch (self.next() orelse return false) {
                .array => |n| left += n,
                .map => |n| left += 2 * @as(u64, n),
                else => {},
            }
        }
        return true;
    }
    /// A reader before the value of a string key of the map that comes next; null where there is no such key.
    pub fn find(self: Reader, name: []const u8) ?Reader {
        var in = self;
        const top = in.next() orelse return null;
        if (top != .map) return null;
        for (0..top.map) |_| {
            var before = in;
            if (!in.skip()) return null;
            const found = before.next() orelse return null;
            if (found.is(name)) return in;
            if (!in.skip()) return null;
        }
        return null;
    }
    /// The value (or head) of a key.
    pub fn get(self: Reader, name: []const u8) ?Value {
        var in = self.find(name) orelse return null;
        return in.next();
    }
};

/// What the host offers; each needs its word in the manifest's `[caps]` and the operator's grant.
pub const host = struct {
    const imports = struct {
        extern "gw1" fn log(level: i32, text: [*]const u8, len: usize) void;
        extern "gw1" fn now_ms() i64;
        extern "gw1" fn config(name: [*]const u8, len: usize, to: [*]u8, room: usize) i32;
        extern "gw1" fn kv_get(name: [*]const u8, len: usize, to: [*]u8, room: usize) i32;
        extern "gw1" fn kv_set(name: [*]const u8, len: usize, value: [*]const u8, size: usize) i32;
        extern "gw1" fn random(to: [*]u8, len: usize) void;
    };
    pub const Level = enum(i32) { debug, info, warning, @"error" };

    /// caps.log. Long text is cut, too many lines are dropped.
    pub fn log(level: Level, text: []const u8) void {
        imports.log(@backingInt(level), text.ptr, text.len);
    }
    /// caps.clock: epoch milliseconds UTC.
    pub fn nowMs() i64 {
        return imports.now_ms();
    }
    /// caps.config: a setting's msgpack, put into `to`; null where there is none, or where it does not fit.
    pub fn config(name: []const u8, to: []u8) ?[]u8 {
        return given(imports.config(name.ptr, name.len, to.ptr, to.len), to);
    }
    /// caps.kv: as config, from a small store that outlives a respawn.
    pub fn kvGet(name: []const u8, to: []u8) ?[]u8 {
        return given(imports.kv_get(name.ptr, name.len, to.ptr, to.len), to);
    }
    /// caps.kv: false where the store is full.
    pub fn kvSet(name: []const u8, value: []const u8) bool {
        return imports.kv_set(name.ptr, name.len, value.ptr, value.len) == 0;
    }
    /// caps.random: fill with unpredictable bytes, at most 4,096.
    pub fn random(to: []u8) void {
        imports.random(to.ptr, to.len);
    }
    fn given(n: i32, to: []u8) ?[]u8 {
        const size = std.math.cast(usize, n) orelse return null;
        return if (size <= to.len) to[0..size] else null;
    }
};

const Buffers = struct {
    var in: [options.in_bytes]u8 align(16) = undefined;
    var out: [options.out_bytes]u8 align(16) = undefined;
};
/// An error code as msgpack.
const code_bytes = 5;

/// The input that the host wrote: within the buffer that gw_buf gave it, whatever it says.
fn received(ptr: u32, len: u32) []const u8 {
    const start = ptr -% @intFromPtr(&Buffers.in);
    if (start > Buffers.in.len or len > Buffers.in.len - start) return "";
    return Buffers.in[start..][0..len];
}

fn pack(bytes: []const u8) i64 {
    return @bitCast(@as(u64, @intFromPtr(bytes.ptr)) << 32 | bytes.len);
}

fn result(out: *Writer, outcome: Failure!void) i64 {
    outcome catch |failure| return code(failure);
    return if (out.full) code(error.TooLarge) else pack(out.written());
}

fn begin() Writer {
    error_text = "";
    return .{ .buffer = &Buffers.out };
}

/// Export a plugin's functions; use once, in a comptime block of the root file. Fields, each optional:
///
/// init: fn (host: Reader) Failure!void reads the map {config, host, plugin_id}; a failure refuses the start.
/// decode: fn (out: *Writer, frame: []const u8, aux: u32) Failure!void writes one item.
/// encode: fn (out: *Writer, request: Reader, aux: u32) Failure!void writes the bytes for the device.
/// call: fn (out: *Writer, args: Reader, aux: u32) Failure!void writes one msgpack value (crypto, notify, ...).
/// save: fn (out: *Writer) Failure!void and load: fn (state: Reader) Failure!void carry state over a reload.
pub fn plugin(comptime functions: anytype) void {
    const has = struct {
        fn has(comptime name: []const u8) bool {
            return @hasField(@TypeOf(functions), name);
        }
    }.has;
    const exports = struct {
        fn abi() callconv(.c) i32 {
            return 0x0001_0000;
        }
        fn buf(len: u32) callconv(.c) u32 {
            return if (len <= Buffers.in.len) @intFromPtr(&Buffers.in) else 0;
        }
        fn lastError() callconv(.c) i64 {
            return if (error_text.len == 0) 0 else pack(error_text[0..@min(error_text.len, 512)]);
        }
        fn init(ptr: u32, len: u32) callconv(.c) u32 {
            error_text = "";
            functions.init(Reader.of(received(ptr, len))) catch |failure| return code(failure);
            return 0;
        }
        fn decode(ptr: u32, len: u32, aux: u32) callconv(.c) i64 {
            var out = begin();
            return result(&out, functions.decode(&out, received(ptr, len), aux));
        }
        fn decodeBatch(ptr: u32, len: u32, n: u32) callconv(.c) i64 {
            return batch(functions.decode, received(ptr, len), n);
        }
        fn encode(ptr: u32, len: u32, aux: u32) callconv(.c) i64 {
            var out = begin();
            return result(&out, functions.encode(&out, Reader.of(received(ptr, len)), aux));
        }
        fn call(ptr: u32, len: u32, aux: u32) callconv(.c) i64 {
            var out = begin();
            return result(&out, functions.call(&out, Reader.of(received(ptr, len)), aux));
        }
        fn save() callconv(.c) i64 {
            var out = begin();
            return result(&out, functions.save(&out));
        }
        fn load(ptr: u32, len: u32) callconv(.c) u32 {
            error_text = "";
            functions.load(Reader.of(received(ptr, len))) catch |failure| return code(failure);
            return 0;
        }
    };
    @export(&exports.abi, .{ .name = "gw_abi" });
    @export(&exports.buf, .{ .name = "gw_buf" });
    @export(&exports.lastError, .{ .name = "gw_last_error" });
    if (has("init")) @export(&exports.init, .{ .name = "gw_init" });
    if (has("decode")) {
        @export(&exports.decode, .{ .name = "gw_decode" });
        @export(&exports.decodeBatch, .{ .name = "gw_decode_batch" });
    }
    if (has("encode")) @export(&exports.encode, .{ .name = "gw_encode" });
    if (has("call")) @export(&exports.call, .{ .name = "gw_call" });
    if (has("save")) @export(&exports.save, .{ .name = "gw_state_save" });
    if (has("load")) @export(&exports.load, .{ .name = "gw_state_load" });
}

/// Decode n frames into one msgpack array. Every item keeps room for the codes of those after it.
fn batch(comptime decode: anytype, in: []const u8, n: u32) i64 {
    if (n > in.len / 8 or n > (Buffers.out.len - 16) / code_bytes) return code(error.Truncated);
    var out = begin();
    out.array(n);
    var heads = Bytes{ .rest = in[0 .. 4 * n] };
    var auxes = Bytes{ .rest = in[4 * n ..][0 .. 4 * n] };
    var frames = Bytes{ .rest = in[8 * n ..] };
    for (0..n) |i| {
        const len = heads.int(u32, .little) catch unreachable;
        const aux = auxes.int(u32, .little) catch unreachable;
        const frame = frames.take(len) catch return code(error.Truncated);
        var item = Writer{ .buffer = Buffers.out[out.len .. Buffers.out.len - code_bytes * (n - i)] };
        const outcome: Failure!void = decode(&item, frame, aux);
        if (outcome) |_| {
            if (item.full) out.uint(code(error.TooLarge)) else out.len += item.len;
        } else |failure| switch (code(failure)) {
            0 => out.nil(),
            else => |number| out.uint(number),
        }
    }
    return pack(out.written());
}
