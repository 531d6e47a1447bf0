// {{name}}: decodes the frames of an example sensor, and encodes what the sensor is told. README.md has the layout.
//
// Put your device in its place: keep the shape (check, look at the type, read, write an item), change the fields.

import { Bytes, Code, Reader, Type, Writer, decoder, encoder, fail, isUtf8, starter } from "gw1";

const IDLE: u8 = 0x00;
const READING: u8 = 0x01;
const MESSAGE: u8 = 0x02;
const TOTALS: u8 = 0x03;
const HISTORY: u8 = 0x04;
const DONE: u8 = 0x05;
const FIRMWARE: u8 = 0x06;
const ACK: u8 = 0x81;
const SET_INTERVAL: u8 = 0x82;

const PROBE_BROKEN: Code = Code.Own;
const NOT_TEXT: Code = Code.Own + 1;

const MOST_PREFIX: u32 = 32;
const MOST_POINTS: u16 = 1000;

/** What the sensors' numbers are called by: `config.prefix`, "sensor-" where nobody says. */
let prefix: string = "sensor-";

function start(host: Reader): Code {
  if (!host.find("config")) return Code.Written;
  const wanted = host.get("prefix");
  if (wanted.type == Type.End) return Code.Written;
  if (wanted.type != Type.Str || wanted.count > MOST_PREFIX) {
    return fail(Code.BadConfig, "config.prefix must be a text of at most 32 bytes");
  }
  prefix = wanted.str();
  return Code.Written;
}
starter(start);

/** The head of every item: `kind` and `device`; the caller says how many more keys follow. */
function item(out: Writer, kind: string, sensor: u16, more: u32): void {
  out.map(2 + more);
  out.key("kind").str(kind);
  out.key("device").numbered(prefix, sensor);
}

/** Whether a payload was as long as its type's: one too long is as wrong as one too short. */
function whole(at: Bytes): bool {
  return !at.short && at.length == 0;
}

function reading(out: Writer, sensor: u16, at: Bytes): Code {
  const tenths = at.beI16();
  const humidity = at.u8();
  const battery = at.beU16();
  if (!whole(at)) return Code.Truncated;
  if (tenths == i16.MIN_VALUE) return fail(PROBE_BROKEN, "the probe is broken");
  item(out, "report", sensor, 2);
  out.key("points").array(1).map(1);
  out.key("values").map(3);
  out.key("temperature").f64(<f64>tenths / 10.0);
  out.key("humidity").uint(humidity);
  out.key("battery_mv").uint(battery);
  // Goes through `encode` once the reading is stored, and then to the sensor.
  out.key("ack").map(2);
  out.key("command").str("ack");
  out.key("args").map(2);
  out.key("sensor").uint(sensor);
  out.key("type").uint(READING);
  return Code.Written;
}

function message(out: Writer, sensor: u16, at: Bytes): Code {
  if (!isUtf8(at.at, at.length)) return fail(NOT_TEXT, "the message is not UTF-8");
  item(out, "event", sensor, 1);
  out.key("event").map(2);
  out.key("name").str("message");
  out.key("data").map(1);
  out.key("text").text(at.at, at.length);
  return Code.Written;
}

function totals(out: Writer, sensor: u16, at: Bytes): Code {
  const pulses = at.beU64();
  const energy = at.beI64();
  if (!whole(at)) return Code.Truncated;
  item(out, "report", sensor, 1);
  out.key("points").array(1).map(1);
  out.key("values").map(2);
  out.key("pulses").uint(pulses);
  out.key("energy_wh").int(energy);
  return Code.Written;
}

function history(out: Writer, sensor: u16, at: Bytes): Code {
  let second: u64 = at.beU32();
  const step: u64 = at.beU16();
  const count = at.beU16();
  const temperature = <f64>at.beI16() / 10.0;
  if (!whole(at)) return Code.Truncated;
  // Ten bytes must not cost the gateway a megabyte.
  if (count > MOST_POINTS) return fail(Code.TooLarge, "more than 1000 points of history");
  item(out, "report", sensor, 1);
  out.key("points").array(count);
  for (let i: u16 = 0; i < count; i++, second += step) {
    out.map(2);
    out.key("at").uint(second * 1000);
    out.key("values").map(1);
    out.key("temperature").f64(temperature);
  }
  return Code.Written;
}

function done(out: Writer, sensor: u16, at: Bytes): Code {
  const serial = at.beU16();
  const result = at.u8();
  if (!whole(at)) return Code.Truncated;
  item(out, "reply", sensor, 2);
  out.key("reply_to").uint(serial);
  out.key("ok").bool(result == 0);
  return Code.Written;
}

function sum(at: usize, length: i32): u8 {
  let total: u8 = 0;
  for (let i = 0; i < length; i++) total += load<u8>(at + i);
  return total;
}

function decode(out: Writer, frame: Bytes, aux: u32): Code {
  const length = frame.length;
  if (length == 0 || length < 1 + <i32>frame.peek(0)) return Code.NeedsMore;
  if (length > 1 + <i32>frame.peek(0) || length < 5) return fail(Code.Truncated, "no frame has this length");
  if (sum(frame.at, length - 1) != frame.peek(length - 1)) return fail(Code.Checksum, "the checksum differs");
  frame.take(1);
  frame.drop(1);
  const kind = frame.u8();
  const sensor = frame.beU16();
  switch (kind) {
    case IDLE:
      return Code.Drop;
    case READING:
      return reading(out, sensor, frame);
    case MESSAGE:
      return message(out, sensor, frame);
    case TOTALS:
      return totals(out, sensor, frame);
    case HISTORY:
      return history(out, sensor, frame);
    case DONE:
      return done(out, sensor, frame);
    case FIRMWARE:
      return fail(Code.Unsupported, "firmware is not read here");
    default:
      return fail(Code.UnknownType, "no such frame");
  }
}
decoder(decode);

/** The number in a device's name; -1 where the name is none of ours. */
function sensorNumber(name: string): i32 {
  const digits = name.length - prefix.length;
  if (!name.startsWith(prefix) || digits < 1 || digits > 5) return -1;
  let number: i32 = 0;
  for (let i = prefix.length; i < name.length; i++) {
    const digit = name.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return -1;
    number = number * 10 + digit;
  }
  return number <= <i32>u16.MAX_VALUE ? number : -1;
}

/** Fill in the length and the checksum, now that the rest of the frame is written. */
function sealed(out: Writer): Code {
  store<u8>(out.start, <u8>out.length);
  out.byte(sum(out.start, out.length));
  return Code.Written;
}

function ack(out: Writer, args: Reader): Code {
  const sensor = args.get("sensor").within(0, u16.MAX_VALUE, -1);
  const kind = args.get("type").within(0, u8.MAX_VALUE, -1);
  if (sensor < 0 || kind < 0) return fail(Code.BadConfig, "ack needs args.sensor and args.type");
  out.byte(0).byte(ACK).big<u16>(<u16>sensor).byte(<u8>kind);
  return sealed(out);
}

function setInterval(out: Writer, request: Reader): Code {
  const sensor = sensorNumber(request.get("device").str());
  const serial = request.get("serial").within(0, u16.MAX_VALUE, -1);
  if (sensor < 0) return fail(Code.BadConfig, "the device's name is no sensor's");
  if (serial < 0) return fail(Code.BadConfig, "serial must be 0 to 65535");
  request.find("args");
  const seconds = request.get("seconds").within(1, u16.MAX_VALUE, 0);
  if (seconds == 0) return fail(Code.BadConfig, "args.seconds must be 1 to 65535");
  out.byte(0).byte(SET_INTERVAL).big<u16>(<u16>sensor).big<u16>(<u16>serial).big<u16>(<u16>seconds);
  return sealed(out);
}

function encode(out: Writer, request: Reader, aux: u32): Code {
  const command = request.get("command");
  if (command.is("ack")) {
    request.find("args");
    return ack(out, request);
  }
  if (command.is("set_interval")) return setInterval(out, request);
  return fail(Code.Unsupported, "commands are ack and set_interval");
}
encoder(encode);
