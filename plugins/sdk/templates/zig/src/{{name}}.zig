//! {{name}}: decodes the frames of an example sensor, and encodes what the sensor is told. README.md has the layout.
//!
//! Put your device in its place: keep the shape (check, look at the type, read, write an item), change the fields.

const std = @import("std");
const gw1 = @import("gw1");

pub const panic = gw1.panic;

const Type = enum(u8) {
    idle = 0x00,
    reading = 0x01,
    message = 0x02,
    totals = 0x03,
    history = 0x04,
    done = 0x05,
    firmware = 0x06,
    ack = 0x81,
    set_interval = 0x82,
    _,
};

const probe_broken = 256;
const not_text = 257;

const most_prefix = 32;
const most_points = 1000;

/// What the sensors' numbers are called by: `config.prefix`, "sensor-" where nobody says.
var prefix_text: [most_prefix]u8 = "sensor-".* ++ @as([most_prefix - 7]u8, @splat(0));
var prefix: []const u8 = prefix_text[0..7];

fn init(host: gw1.Reader) gw1.Failure!void {
    const config = host.find("config") orelse return;
    const wanted = config.get("prefix") orelse return;
    if (wanted != .str or wanted.str.len > most_prefix)
        return gw1.fail(error.BadConfig, "config.prefix must be a text of at most 32 bytes");
    @memcpy(prefix_text[0..wanted.str.len], wanted.str);
    prefix = prefix_text[0..wanted.str.len];
}

/// The head of every item: `kind` and `device`; the caller says how many more keys follow.
fn item(out: *gw1.Writer, kind: []const u8, sensor: u16, more: usize) void {
    var name: [most_prefix + 5]u8 = undefined;
    var at: usize = name.len;
    var rest = sensor;
    while (true) {
        at -= 1;
        name[at] = '0' + @as(u8, @truncate(rest % 10));
        rest /= 10;
        if (rest == 0) break;
    }
    at -= prefix.len;
    @memcpy(name[at..][0..prefix.len], prefix);
    out.map(2 + more);
    out.key("kind");
    out.str(kind);
    out.key("device");
    out.str(name[at..]);
}

/// One point without a time of its own, of so many values.
fn point(out: *gw1.Writer, values: usize) void {
    out.key("points");
    out.array(1);
    out.map(1);
    out.key("values");
    out.map(values);
}

fn tenths(v: i16) f64 {
    return @as(f64, @floatFromInt(v)) / 10.0;
}

fn reading(out: *gw1.Writer, sensor: u16, payload: gw1.Bytes) gw1.Failure!void {
    var at = payload;
    const temperature = try at.int(i16, .big);
    const humidity = try at.int(u8, .big);
    const battery = try at.int(u16, .big);
    try end(at);
    if (temperature == std.math.minInt(i16)) return gw1.own(probe_broken, "the probe is broken");
    item(out, "report", sensor, 2);
    point(out, 3);
    out.key("temperature");
    out.float(tenths(temperature));
    out.key("humidity");
    out.uint(humidity);
    out.key("battery_mv");
    out.uint(battery);
    // Goes through `encode` once the reading is stored, and then to the sensor.
    out.key("ack");
    out.map(2);
    out.key("command");
    out.str("ack");
    out.key("args");
    out.map(2);
    out.key("sensor");
    out.uint(sensor);
    out.key("type");
    out.uint(@backingInt(Type.reading));
}

fn message(out: *gw1.Writer, sensor: u16, text: []const u8) gw1.Failure!void {
    if (!std.unicode.utf8ValidateSlice(text)) return gw1.own(not_text, "the message is not UTF-8");
    item(out, "event", sensor, 1);
    out.key("event");
    out.map(2);
    out.key("name");
    out.str("message");
    out.key("data");
    out.map(1);
    out.key("text");
    out.str(text);
}

fn totals(out: *gw1.Writer, sensor: u16, payload: gw1.Bytes) gw1.Failure!void {
    var at = payload;
    const pulses = try at.int(u64, .big);
    const energy = try at.int(i64, .big);
    try end(at);
    item(out, "report", sensor, 1);
    point(out, 2);
    out.key("pulses");
    out.uint(pulses);
    out.key("energy_wh");
    out.sint(energy);
}

fn history(out: *gw1.Writer, sensor: u16, payload: gw1.Bytes) gw1.Failure!void {
    var at = payload;
    const start: u64 = try at.int(u32, .big);
    const step: u64 = try at.int(u16, .big);
    const count = try at.int(u16, .big);
    const temperature = try at.int(i16, .big);
    try end(at);
    // Ten bytes must not cost the gateway a megabyte.
    if (count > most_points) return gw1.fail(error.TooLarge, "more than 1000 points of history");
    item(out, "report", sensor, 1);
    out.key("points");
    out.array(count);
    for (0..count) |i| {
        out.map(2);
        out.key("at");
        out.uint((start + step * i) * 1000);
        out.key("values");
        out.map(1);
        out.key("temperature");
        out.float(tenths(temperature));
    }
}

fn done(out: *gw1.Writer, sensor: u16, payload: gw1.Bytes) gw1.Failure!void {
    var at = payload;
    const serial = try at.int(u16, .big);
    const result = try at.int(u8, .big);
    try end(at);
    item(out, "reply", sensor, 2);
    out.key("reply_to");
    out.uint(serial);
    out.key("ok");
    out.boolean(result == 0);
}

/// A payload longer than its type's is as wrong as a shorter one.
fn end(at: gw1.Bytes) gw1.Failure!void {
    if (at.rest.len > 0) return error.Truncated;
}

fn sum(bytes: []const u8) u8 {
    var total: u8 = 0;
    for (bytes) |one| total +%= one;
    return total;
}

fn decode(out: *gw1.Writer, frame: []const u8, aux: u32) gw1.Failure!void {
    _ = aux;
    if (frame.len == 0 or frame.len < 1 + @as(usize, frame[0])) return error.NeedsMore;
    if (frame.len > 1 + @as(usize, frame[0]) or frame.len < 5)
        return gw1.fail(error.Truncated, "no frame has this length");
    const body = frame[0 .. frame.len - 1];
    if (sum(body) != frame[body.len]) return gw1.fail(error.Checksum, "the checksum differs");
    var at = gw1.Bytes{ .rest = body[1..] };
    const kind: Type = @fromBackingInt(@intCast(try at.int(u8, .big)));
    const sensor = try at.int(u16, .big);
    switch (kind) {
        .idle => return error.Drop,
        .reading => try reading(out, sensor, at),
        .message => try message(out, sensor, at.rest),
        .totals => try totals(out, sensor, at),
        .history => try history(out, sensor, at),
        .done => try done(out, sensor, at),
        .firmware => return gw1.fail(error.Unsupported, "firmware is not read here"),
        else => return gw1.fail(error.UnknownType, "no such frame"),
    }
}

/// The number in a device's name; null where the name is none of ours.
fn sensorNumber(name: ?gw1.Value) ?u16 {
    const value = name orelse return null;
    if (value != .str or !std.mem.startsWith(u8, value.str, prefix)) return null;
    const digits = value.str[prefix.len..];
    if (digits.len == 0 or digits.len > 5) return null;
    var number: u32 = 0;
    for (digits) |digit| {
        if (!std.ascii.isDigit(digit)) return null;
        number = number * 10 + (digit - '0');
    }
    return std.math.cast(u16, number);
}

/// An argument as an integer of type T; null where it is missing or does not fit.
fn whole(comptime T: type, value: ?gw1.Value) ?T {
    return (value orelse return null).as(T);
}

fn encode(out: *gw1.Writer, request: gw1.Reader, aux: u32) gw1.Failure!void {
    _ = aux;
    const command = request.get("command") orelse gw1.Value.nil;
    const args = request.find("args") orelse gw1.Reader.of("");
    if (command.is("ack")) {
        const why = "ack needs args.sensor and args.type";
        const sensor = whole(u16, args.get("sensor")) orelse return gw1.fail(error.BadConfig, why);
        const kind = whole(u8, args.get("type")) orelse return gw1.fail(error.BadConfig, why);
        out.raw(&.{ 0, @backingInt(Type.ack) });
        out.int(u16, sensor, .big);
        out.raw(&.{kind});
    } else if (command.is("set_interval")) {
        const sensor = sensorNumber(request.get("device")) orelse
            return gw1.fail(error.BadConfig, "the device's name is no sensor's");
        const serial = whole(u16, request.get("serial")) orelse
            return gw1.fail(error.BadConfig, "serial must be 0 to 65535");
        const seconds = whole(u16, args.get("seconds")) orelse 0;
        if (seconds == 0) return gw1.fail(error.BadConfig, "args.seconds must be 1 to 65535");
        out.raw(&.{ 0, @backingInt(Type.set_interval) });
        out.int(u16, sensor, .big);
        out.int(u16, serial, .big);
        out.int(u16, seconds, .big);
    } else return gw1.fail(error.Unsupported, "commands are ack and set_interval");
    // The length and the checksum, now that the rest is known.
    const frame = out.written();
    frame[0] = @intCast(frame.len);
    out.raw(&.{sum(frame)});
}

comptime {
    gw1.plugin(.{ .init = init, .decode = decode, .encode = encode });
}
