// {{name}}: decodes the payloads of an example sensor, and encodes what the sensor is told. README.md has the layout.
//
// The functions are those of The Things Network's payload formatter v3, which ChirpStack v4 takes, too: the file runs
// there unchanged, as theirs run here. Put your device in the place of the sensor, or a vendor's file in place of this.

var PORTS = { IDLE: 0, READING: 1, MESSAGE: 2, TOTALS: 3, SET_INTERVAL: 10 };

function decodeUplink(input) {
  try {
    switch (input.fPort) {
      case PORTS.IDLE:
        return {}; // no data: the frame is dropped
      case PORTS.READING:
        return reading(input.bytes);
      case PORTS.MESSAGE:
        return { data: { text: text(input.bytes) } };
      case PORTS.TOTALS:
        return totals(input.bytes);
      default:
        return { errors: ["no such fPort: " + input.fPort] };
    }
  } catch (error) {
    return { errors: [error.message] };
  }
}

function reading(bytes) {
  expect(bytes, 5);
  var tenths = signed(number(bytes, 0, 2), 16);
  if (tenths === -32768) return { errors: ["the probe is broken"] };
  var data = { temperature: tenths / 10, humidity: bytes[2], battery_mv: number(bytes, 3, 2) };
  return data.battery_mv < 2400 ? { data: data, warnings: ["battery low"] } : { data: data };
}

// 64 bits are more than a Number holds exactly: BigInt reaches the gateway as an integer.
function totals(bytes) {
  expect(bytes, 16);
  return { data: { pulses: big(bytes, 0), energy_wh: BigInt.asIntN(64, big(bytes, 8)) } };
}

// Throws for what is no UTF-8. Not every network's engine has TextDecoder.
function text(bytes) {
  return decodeURIComponent(bytes.map((byte) => "%" + (byte + 256).toString(16).slice(1)).join(""));
}

function expect(bytes, length) {
  if (bytes.length !== length) throw new Error(length + " bytes expected, not " + bytes.length);
}

function number(bytes, at, length) {
  var value = 0;
  for (var i = 0; i < length; i++) value = value * 256 + bytes[at + i];
  return value;
}

function big(bytes, at) {
  return (BigInt(number(bytes, at, 4)) << BigInt(32)) | BigInt(number(bytes, at + 4, 4));
}

function signed(value, bits) {
  return value >= Math.pow(2, bits - 1) ? value - Math.pow(2, bits) : value;
}

function encodeDownlink(input) {
  var seconds = input.data.seconds;
  if (!Number.isInteger(seconds) || seconds < 1 || seconds > 65535) {
    return { errors: ["seconds must be 1 to 65535"] };
  }
  return { fPort: PORTS.SET_INTERVAL, bytes: [seconds >> 8, seconds & 255] };
}
