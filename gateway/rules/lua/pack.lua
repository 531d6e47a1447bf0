-- MessagePack in and out of a sandbox: JSON-like values only, of bounded depth and size, read without metamethods.
-- Source: MessagePack specification, formats overview.
local max_depth = ...

local pack, unpack, byte, char, sub, format = string.pack, string.unpack, string.byte, string.char, string.sub, string.format
local concat, next, type, error, rawlen, utf8_length = table.concat, next, type, error, rawlen, utf8.len
local math_type, huge = math.type, math.huge

-- Writing --------------------------------------------------------------------------------------------------------

-- Texts that are keys, as bytes: a rule uses the same few again and again.
local keys, key_count = {}, 0

local function key_text(key, what)
  if not utf8_length(key) then error(what .. ": text must be UTF-8", 0) end
  if #key >= 32 then return pack(">Bs4", 0xdb, key) end
  if key_count >= 500 then keys, key_count = {}, 0 end
  local bytes = char(0xa0 + #key) .. key
  keys[key], key_count = bytes, key_count + 1
  return bytes
end

local bytes_too = false -- whether strings that are no text may leave, as binary

local function text(value, out, n, what)
  if not utf8_length(value) then
    if not bytes_too then error(what .. ": text must be UTF-8", 0) end
    out[n + 1] = pack(">Bs4", 0xc6, value)
    return n + 1
  end
  out[n + 1] = #value < 32 and char(0xa0 + #value) .. value or pack(">Bs4", 0xdb, value)
  return n + 1
end

local put

-- Tables with the keys 1..n are arrays, all others must have text keys.
local function put_table(value, out, n, depth, room, what)
  if depth == 0 then error(what .. ": nested too deeply (or a cycle)", 0) end
  local length, header, count = rawlen(value), n + 1, 0
  n = header
  if length > 0 then
    for key in next, value do
      count = count + 1
      if math_type(key) ~= "integer" or key < 1 or key > length then
        error(what .. ": a table needs either the keys 1..n or text keys", 0)
      end
      if count > room then error(what .. ": too large", 0) end
    end
    for i = 1, length do n = put(value[i], out, n, depth - 1, room, what) end
    out[header] = length < 16 and char(0x90 + length) or pack(">BI4", 0xdd, length)
    return n
  end
  for key, item in next, value do
    if type(key) ~= "string" then error(what .. ": a table needs either the keys 1..n or text keys", 0) end
    count = count + 1
    out[n + 1] = keys[key] or key_text(key, what)
    n = put(item, out, n + 1, depth - 1, room, what)
  end
  out[header] = count < 16 and char(0x80 + count) or pack(">BI4", 0xdf, count)
  return n
end

function put(value, out, n, depth, room, what)
  if n > room then error(what .. ": too large", 0) end
  local kind = type(value)
  if kind == "string" then
    if #value > room then error(what .. ": too large", 0) end
    return text(value, out, n, what)
  elseif kind == "number" then
    if math_type(value) == "integer" then
      out[n + 1] = value >= 0 and value < 128 and char(value) or pack(">Bi8", 0xd3, value)
    elseif value ~= value or value == huge or value == -huge then
      error(what .. ": a number must be finite", 0)
    else
      out[n + 1] = pack(">Bd", 0xcb, value)
    end
  elseif kind == "boolean" then
    out[n + 1] = value and "\xc3" or "\xc2"
  elseif kind == "nil" then
    out[n + 1] = "\xc0"
  elseif kind == "table" then
    return put_table(value, out, n, depth, room, what)
  else
    error(format("%s: a %s cannot be kept, only JSON-like values", what, kind), 0)
  end
  return n + 1
end

-- The value as bytes, at most `room` of them; `what` names it in errors. An array passes only below the top.
local function encode(value, room, what, with_bytes)
  bytes_too = with_bytes
  if rawlen(value) > 0 then error(what .. ": its keys must be text", 0) end
  local out = {}
  put_table(value, out, 0, max_depth, room, what)
  local bytes = concat(out)
  if #bytes > room then error(format("%s: %d bytes are over the limit of %d", what, #bytes, room), 0) end
  return bytes
end

-- Reading: only what the gateway itself wrote --------------------------------------------------------------------

local read = {}

local function value_at(bytes, at) return read[byte(bytes, at)](bytes, at + 1) end

local function array(bytes, at, n)
  local list = {}
  for i = 1, n do list[i], at = value_at(bytes, at) end
  return list, at
end

local function map(bytes, at, n)
  local found, key = {}, nil
  for _ = 1, n do
    key, at = value_at(bytes, at)
    found[key], at = value_at(bytes, at)
  end
  return found, at
end

for code = 0x00, 0x7f do read[code] = function(_, at) return code, at end end
for code = 0xe0, 0xff do read[code] = function(_, at) return code - 256, at end end
for n = 0, 15 do
  read[0x80 + n] = function(bytes, at) return map(bytes, at, n) end
  read[0x90 + n] = function(bytes, at) return array(bytes, at, n) end
end
for n = 0, 31 do read[0xa0 + n] = function(bytes, at) return sub(bytes, at, at + n - 1), at + n end end
read[0xc0] = function(_, at) return nil, at end
read[0xc2] = function(_, at) return false, at end
read[0xc3] = function(_, at) return true, at end
for code, layout in next, {
  [0xca] = ">f", [0xcb] = ">d", [0xcc] = ">I1", [0xcd] = ">I2", [0xce] = ">I4", [0xcf] = ">I8", [0xd0] = ">i1",
  [0xd1] = ">i2", [0xd2] = ">i4", [0xd3] = ">i8", [0xc4] = ">s1", [0xc5] = ">s2", [0xc6] = ">s4", [0xd9] = ">s1", [0xda] = ">s2", [0xdb] = ">s4",
} do
  read[code] = function(bytes, at) return unpack(layout, bytes, at) end
end
local function sized(layout, body)
  return function(bytes, at)
    local n
    n, at = unpack(layout, bytes, at)
    return body(bytes, at, n)
  end
end
read[0xdc], read[0xdd] = sized(">I2", array), sized(">I4", array)
read[0xde], read[0xdf] = sized(">I2", map), sized(">I4", map)

local function decode(bytes) return (value_at(bytes, 1)) end

-- Text for a log line: bounded, and made UTF-8.
local function line(room, ...)
  local shown = {}
  for i = 1, select("#", ...) do shown[i] = tostring((select(i, ...))) end
  local joined = sub(concat(shown, " "), 1, room)
  return utf8_length(joined) and joined or (string.gsub(joined, "[\128-\255]", "?"))
end

return encode, decode, line
