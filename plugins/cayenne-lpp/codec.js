// SPDX-License-Identifier: Apache-2.0
//
// Cayenne LPP: readings as channel, type, value. A reading's name is that of its type and its channel, as on The Things
// Network: `temperature_3`.
//
// Source: myDevices, "Cayenne Low Power Payload", section Data Types. Types 100, 116 to 133 and 142, which libraries for
// devices added: IPSO Alliance, "Smart Objects Expansion Pack" 1.0, less 3200, in the sizes that those libraries use.

// type: [name, bytes of one number, signed, parts of one unit, names of its numbers where it has many]
var TYPES = {
  0: ["digital_input", 1, false, 1],
  1: ["digital_output", 1, false, 1],
  2: ["analog_input", 2, true, 100],
  3: ["analog_output", 2, true, 100],
  100: ["generic_sensor", 4, false, 1],
  101: ["luminosity", 2, false, 1],
  102: ["presence", 1, false, 1],
  103: ["temperature", 2, true, 10],
  104: ["relative_humidity", 1, false, 2],
  113: ["accelerometer", 2, true, 1000, ["x", "y", "z"]],
  115: ["barometric_pressure", 2, false, 10],
  116: ["voltage", 2, false, 100],
  117: ["current", 2, false, 1000],
  118: ["frequency", 4, false, 1],
  120: ["percentage", 1, false, 1],
  121: ["altitude", 2, true, 1],
  125: ["concentration", 2, false, 1],
  128: ["power", 2, false, 1],
  130: ["distance", 4, false, 1000],
  131: ["energy", 4, false, 1000],
  132: ["direction", 2, false, 1],
  133: ["unix_time", 4, false, 1],
  134: ["gyrometer", 2, true, 100, ["x", "y", "z"]],
  136: ["gps", 3, true, [10000, 10000, 100], ["latitude", "longitude", "altitude"]],
  142: ["switch", 1, false, 1]
};

// The same by name, for what may be sent to a device.
var OUTPUTS = { digital_output: 1, analog_output: 3 };

function number(bytes, at, size, signed) {
  var value = 0;
  for (var i = 0; i < size; i++) value = value * 256 + bytes[at + i];
  var range = Math.pow(256, size);
  return signed && value >= range / 2 ? value - range : value;
}

function reading(bytes, at, type) {
  var size = type[1];
  var parts = type[4];
  if (!parts) return number(bytes, at, size, type[2]) / type[3];
  var value = {};
  for (var i = 0; i < parts.length; i++) {
    var per_unit = Array.isArray(type[3]) ? type[3][i] : type[3];
    value[parts[i]] = number(bytes, at + i * size, size, type[2]) / per_unit;
  }
  return value;
}

function decodeUplink(input) {
  var bytes = input.bytes;
  var data = {};
  var at = 0;
  while (at < bytes.length) {
    var type = TYPES[bytes[at + 1]];
    if (!type) return { errors: ["no known type at byte " + (at + 1)] };
    var size = type[1] * (type[4] ? type[4].length : 1);
    if (at + 2 + size > bytes.length) return { errors: ["the frame ends within the reading at byte " + at] };
    data[type[0] + "_" + bytes[at]] = reading(bytes, at + 2, type);
    at += 2 + size;
  }
  return { data: data };
}

function encodeDownlink(input) {
  var bytes = [];
  var names = Object.keys(input.data);
  for (var i = 0; i < names.length; i++) {
    var match = /^([a-z_]+)_([0-9]{1,3})$/.exec(names[i]);
    var code = match && OUTPUTS.hasOwnProperty(match[1]) && OUTPUTS[match[1]];
    if (!code || match[2] > 255) return { errors: [names[i] + ": name digital_output_N or analog_output_N, N from 0 to 255"] };
    var type = TYPES[code];
    var range = Math.pow(256, type[1]);
    var given = input.data[names[i]];
    var value = typeof given === "number" ? Math.round(given * type[3]) : NaN; // null, "" and [5] would count as numbers
    if (!(value >= (type[2] ? -range / 2 : 0) && value < (type[2] ? range / 2 : range))) {
      return { errors: [names[i] + ": not a number in the range of its type"] };
    }
    bytes.push(Number(match[2]), code);
    for (var k = type[1] - 1; k >= 0; k--) bytes.push(Math.floor((value < 0 ? value + range : value) / Math.pow(256, k)) % 256);
  }
  if (!bytes.length) return { errors: ["nothing to send: name digital_output_N or analog_output_N"] };
  return { bytes: bytes, fPort: 1 };
}
