//! {{name}}: decodes the frames of an example sensor, and encodes what the sensor is told. README.md has the layout.
//!
//! Put your device in its place: keep the shape (check, look at the type, read, write an item), change the fields.

use std::cell::RefCell;
use std::str;

use gw1::{Bytes, Code, Failure, Outcome, Reader, Value, Writer};

const IDLE: u8 = 0x00;
const READING: u8 = 0x01;
const MESSAGE: u8 = 0x02;
const TOTALS: u8 = 0x03;
const HISTORY: u8 = 0x04;
const DONE: u8 = 0x05;
const FIRMWARE: u8 = 0x06;
const ACK: u8 = 0x81;
const SET_INTERVAL: u8 = 0x82;

const PROBE_BROKEN: Code = Code(256);
const NOT_TEXT: Code = Code(257);

const MOST_PREFIX: usize = 32;
const MOST_POINTS: u16 = 1000;

thread_local! {
    /// What the sensors' numbers are called by: `config.prefix`, "sensor-" where nobody says.
    static PREFIX: RefCell<String> = RefCell::new("sensor-".to_string());
}

fn init(host: Reader) -> Outcome {
    match host.find("config").and_then(|config| config.get("prefix")) {
        None => Ok(()),
        Some(Value::Str(prefix)) if prefix.len() <= MOST_PREFIX => {
            PREFIX.with(|kept| *kept.borrow_mut() = prefix.to_string());
            Ok(())
        }
        Some(_) => Err(Code::BAD_CONFIG.because("config.prefix must be a text of at most 32 bytes")),
    }
}

/// The head of every item: `kind` and `device`; the caller says how many more keys follow.
fn item(out: &mut Writer, kind: &str, sensor: u16, more: usize) {
    let mut digits = [0; 5];
    let mut at = digits.len();
    let mut rest = sensor;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let number = str::from_utf8(&digits[at..]).unwrap_or("");
    out.map(2 + more);
    out.key("kind").str(kind);
    PREFIX.with(|prefix| out.key("device").str2(&prefix.borrow(), number));
}

fn reading(out: &mut Writer, sensor: u16, mut at: Bytes) -> Outcome {
    let (tenths, humidity, battery) = (at.be_i16()?, at.u8()?, at.be_u16()?);
    end(at)?;
    if tenths == i16::MIN {
        return Err(PROBE_BROKEN.because("the probe is broken"));
    }
    item(out, "report", sensor, 2);
    out.key("points").array(1).map(1);
    out.key("values").map(3);
    out.key("temperature").f64(f64::from(tenths) / 10.0);
    out.key("humidity").uint(humidity.into());
    out.key("battery_mv").uint(battery.into());
    // Goes through `encode` once the reading is stored, and then to the sensor.
    out.key("ack").map(2);
    out.key("command").str("ack");
    out.key("args").map(2);
    out.key("sensor").uint(sensor.into());
    out.key("type").uint(READING.into());
    Ok(())
}

fn message(out: &mut Writer, sensor: u16, at: Bytes) -> Outcome {
    let text = str::from_utf8(at.0).map_err(|_| NOT_TEXT.because("the message is not UTF-8"))?;
    item(out, "event", sensor, 1);
    out.key("event").map(2);
    out.key("name").str("message");
    out.key("data").map(1);
    out.key("text").str(text);
    Ok(())
}

fn totals(out: &mut Writer, sensor: u16, mut at: Bytes) -> Outcome {
    let (pulses, energy) = (at.be_u64()?, at.be_i64()?);
    end(at)?;
    item(out, "report", sensor, 1);
    out.key("points").array(1).map(1);
    out.key("values").map(2);
    out.key("pulses").uint(pulses);
    out.key("energy_wh").int(energy);
    Ok(())
}

fn history(out: &mut Writer, sensor: u16, mut at: Bytes) -> Outcome {
    let (start, step, count, tenths) = (at.be_u32()?, at.be_u16()?, at.be_u16()?, at.be_i16()?);
    end(at)?;
    if count > MOST_POINTS {
        // Ten bytes must not cost the gateway a megabyte.
        return Err(Code::TOO_LARGE.because("more than 1000 points of history"));
    }
    item(out, "report", sensor, 1);
    out.key("points").array(count.into());
    for i in 0..u64::from(count) {
        out.map(2);
        out.key("at").uint((u64::from(start) + u64::from(step) * i) * 1000);
        out.key("values").map(1);
        out.key("temperature").f64(f64::from(tenths) / 10.0);
    }
    Ok(())
}

fn done(out: &mut Writer, sensor: u16, mut at: Bytes) -> Outcome {
    let (serial, result) = (at.be_u16()?, at.u8()?);
    end(at)?;
    item(out, "reply", sensor, 2);
    out.key("reply_to").uint(serial.into());
    out.key("ok").bool(result == 0);
    Ok(())
}

/// A payload longer than its type's is as wrong as a shorter one.
fn end(at: Bytes) -> Outcome {
    if at.0.is_empty() {
        Ok(())
    } else {
        Err(Code::TRUNCATED.into())
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |total, byte| total.wrapping_add(*byte))
}

fn decode(out: &mut Writer, frame: &[u8], _aux: u32) -> Outcome {
    let whole = match frame.first() {
        Some(length) => 1 + usize::from(*length),
        None => return Err(Code::NEEDS_MORE.into()),
    };
    if frame.len() < whole {
        return Err(Code::NEEDS_MORE.into());
    }
    if frame.len() > whole || frame.len() < 5 {
        return Err(Code::TRUNCATED.because("no frame has this length"));
    }
    let (body, checksum) = frame.split_at(whole - 1);
    if sum(body) != checksum[0] {
        return Err(Code::CHECKSUM.because("the checksum differs"));
    }
    let mut at = Bytes(&body[1..]);
    let (kind, sensor) = (at.u8()?, at.be_u16()?);
    match kind {
        IDLE => Err(Code::DROP.into()),
        READING => reading(out, sensor, at),
        MESSAGE => message(out, sensor, at),
        TOTALS => totals(out, sensor, at),
        HISTORY => history(out, sensor, at),
        DONE => done(out, sensor, at),
        FIRMWARE => Err(Code::UNSUPPORTED.because("firmware is not read here")),
        _ => Err(Code::UNKNOWN_TYPE.because("no such frame")),
    }
}

/// The number in a device's name; None where the name is none of ours.
fn sensor_number(name: &str) -> Option<u16> {
    let digits = PREFIX.with(|prefix| name.strip_prefix(prefix.borrow().as_str()))?;
    if digits.len() > 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// An argument within the range of its field, or the reason why the command is refused.
fn whole<T: TryFrom<i64>>(value: Option<Value>, why: &'static str) -> Result<T, Failure> {
    value.and_then(Value::as_i64).and_then(|number| T::try_from(number).ok()).ok_or_else(|| Code::BAD_CONFIG.because(why))
}

fn encode(out: &mut Writer, request: Reader, _aux: u32) -> Outcome {
    let args = request.find("args").unwrap_or(Reader(&[]));
    match request.get("command").and_then(Value::as_str) {
        Some("ack") => {
            let why = "ack needs args.sensor and args.type";
            let (sensor, kind): (u16, u8) = (whole(args.get("sensor"), why)?, whole(args.get("type"), why)?);
            out.raw(&[0, ACK]).raw(&sensor.to_be_bytes()).raw(&[kind]);
        }
        Some("set_interval") => {
            let device = request.get("device").and_then(Value::as_str).and_then(sensor_number);
            let sensor = device.ok_or_else(|| Code::BAD_CONFIG.because("the device's name is no sensor's"))?;
            let serial: u16 = whole(request.get("serial"), "serial must be 0 to 65535")?;
            let seconds: u16 = whole(args.get("seconds"), "args.seconds must be 1 to 65535")?;
            if seconds == 0 {
                return Err(Code::BAD_CONFIG.because("args.seconds must be 1 to 65535"));
            }
            out.raw(&[0, SET_INTERVAL]).raw(&sensor.to_be_bytes());
            out.raw(&serial.to_be_bytes()).raw(&seconds.to_be_bytes());
        }
        _ => return Err(Code::UNSUPPORTED.because("commands are ack and set_interval")),
    }
    // The length and the checksum, now that the rest is known.
    let frame = out.written();
    frame[0] = frame.len() as u8;
    let checksum = sum(frame);
    out.raw(&[checksum]);
    Ok(())
}

gw1::plugin! { init: init, decode: decode, encode: encode }
