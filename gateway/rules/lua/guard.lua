-- The sandbox's walls: instruction budget, CPU time, and every standard function that could work for long inside C.
-- Knows nothing of rules or scenes. Returns the guarded environment and the three calls that a host API needs.
local max_steps, max_cpu_s, max_text, max_work = ...

local error, pcall, type, tostring, select = error, pcall, type, tostring, select
local rawget, setmetatable, next = rawget, setmetatable, next
local sethook, getinfo, clock = debug.sethook, debug.getinfo, os.clock
local tointeger, floor = math.tointeger, math.floor
local find, match, gmatch, gsub, sub, byte = string.find, string.match, string.gmatch, string.gsub, string.sub, string.byte
local format, rep, concat, insert, remove = string.format, string.rep, table.concat, table.insert, table.remove

-- Budget ---------------------------------------------------------------------------------------------------------

local INTERVAL <const> = 1000 -- instructions between two looks at the budget: a hook call costs about 100 of them
local inside, used, started, spent = false, 0, nil, nil
local tick, settle, bounded

-- Ends the present call for good: `spent` stays set, so that nothing that catches the error can go on.
local function overrun(reason)
  spent = reason
  for level = 2, 8 do
    local at = getinfo(level, "Sl")
    if at and byte(at.source, 1) == 64 and at.currentline > 0 then
      spent = format("%s:%d: %s", at.short_src, at.currentline, reason)
      break
    end
  end
  sethook(tick, "", 1)
  error(spent, 0)
end

local function look_at_clock()
  if spent then error(spent, 0) end
  if not started then
    started = clock()
  elseif clock() - started > max_cpu_s then
    overrun("CPU time spent")
  end
end

function tick()
  if spent then
    local caller = getinfo(2, "f").func
    if caller == settle or caller == bounded then -- the call is over
      sethook(tick, "", INTERVAL)
      return
    end
    sethook(tick, "", 1)
    error(spent, 0)
  end
  if not inside then return end
  used = used + INTERVAL
  if used > max_steps then overrun("instruction budget spent") end
  look_at_clock()
end

-- Pays for work that C does without a hook, in instructions.
local function charge(steps)
  if spent then error(spent, 0) end
  used = used + steps
  if used > max_steps then overrun("instruction budget spent") end
end

-- A caught error may be the budget's: it is raised again at once.
local function go_on(...)
  if spent then error(spent, 0) end
  return ...
end

-- Strings --------------------------------------------------------------------------------------------------------

local function text(value, position, name)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return tostring(value) end
  error(format("bad argument #%d to '%s' (string expected, got %s)", position, name, kind), 3)
end

local function linear(name, work, share)
  return function(s, ...)
    s = text(s, 1, name)
    charge(#s // share)
    return work(s, ...)
  end
end

local guarded = {
  len = string.len,
  sub = sub,
  lower = linear("lower", string.lower, 16),
  upper = linear("upper", string.upper, 16),
  reverse = linear("reverse", string.reverse, 16),
  byte = linear("byte", byte, 4),
  unpack = linear("unpack", string.unpack, 1),
  packsize = linear("packsize", string.packsize, 1),
}

function guarded.char(...)
  charge(select("#", ...))
  return string.char(...)
end

function guarded.rep(s, n, sep)
  s, sep = text(s, 1, "rep"), sep == nil and "" or text(sep, 3, "rep")
  n = tointeger(n) or error("bad argument #2 to 'rep' (integer expected)", 2)
  local unit = #s + #sep
  if n > max_text or unit > 0 and n > max_text // unit then error("string.rep: the result would be too long", 2) end
  if n > 0 then charge(unit * n // 16) end
  return rep(s, n, sep)
end

function guarded.format(pattern, ...)
  pattern = text(pattern, 1, "format")
  local length = #pattern
  for i = 1, select("#", ...) do
    local value = (select(i, ...))
    if type(value) == "string" then length = length + #value end
  end
  if length > max_text then error("string.format: the result would be too long", 2) end
  charge(length)
  return format(pattern, ...)
end

function guarded.pack(layout, ...)
  layout = text(layout, 1, "pack")
  if #layout > 1000 or find(layout, "%d%d%d%d%d") then error("string.pack: the result would be too long", 2) end
  charge(#layout * 16)
  return string.pack(layout, ...)
end

-- Patterns -------------------------------------------------------------------------------------------------------
-- The matcher of Lua backtracks: its cost is the subject's length to the power of the repetitions that can give
-- characters back to what follows them. A repetition whose characters cannot begin what follows it gives nothing back.

local every = {}
for code = 0, 255 do every[code + 1] = string.char(code) end
local EVERY = concat(every)

local function members(class)
  local found = {}
  for char in gmatch(EVERY, class) do found[#found + 1] = char end
  return concat(found)
end

local function end_of_set(pattern, at)
  at = at + 1
  if sub(pattern, at, at) == "^" then at = at + 1 end
  repeat
    local char = sub(pattern, at, at)
    if char == "" then error("malformed pattern (missing ']')", 0) end
    at = at + (char == "%" and 2 or 1)
  until sub(pattern, at, at) == "]"
  return at
end

-- The single-character class at a position, as a pattern of its own, and where it ends.
local function class_at(pattern, at)
  local char = sub(pattern, at, at)
  if char == "[" then
    local last = end_of_set(pattern, at)
    return sub(pattern, at, last), last
  elseif char == "%" then
    if at == #pattern then error("malformed pattern (ends with '%')", 0) end
    return sub(pattern, at, at + 1), at + 1
  elseif char == "." or find(char, "^%w") then
    return char, at
  end
  return "%" .. char, at
end

local SPECIAL <const> = "^%%[bf0-9]" -- %b, %f and back references match by rules of their own

local function parse(pattern)
  local items, at = {}, byte(pattern, 1) == 94 and 2 or 1
  while at <= #pattern do
    local char = sub(pattern, at, at)
    if char == "(" or char == ")" then
      at = at + 1
    elseif char == "$" and at == #pattern then
      items[#items + 1] = { class = "$", quantifier = "", last = true }
      at = at + 1
    elseif find(sub(pattern, at, at + 1), SPECIAL) then
      local kind = sub(pattern, at + 1, at + 1)
      items[#items + 1] = { opaque = true, quantifier = "" }
      at = kind == "b" and at + 4 or kind == "f" and end_of_set(pattern, at + 2) + 1 or at + 2
    else
      local class, last = class_at(pattern, at)
      local quantifier = match(pattern, "^[*+?-]", last + 1) or ""
      items[#items + 1] = { class = class, quantifier = quantifier }
      at = last + 1 + #quantifier
    end
  end
  return items
end

-- From which items on the rest of the pattern cannot fail, so that nothing before it is ever asked to give back: all
-- may match nothing, and where the end is asked for, some `.*` reaches it.
local function certain_rests(items)
  local certain, ending = {}, items[#items] ~= nil and items[#items].last
  local reaches = not ending
  certain[#items + 1] = true
  for i = ending and #items - 1 or #items, 1, -1 do
    local item = items[i]
    if item.quantifier == "" or item.quantifier == "+" then break end
    reaches = reaches or item.class == "." and item.quantifier ~= "?"
    certain[i] = reaches
  end
  return certain
end

local function gives_back(items, i, certain)
  if certain[i + 1] then return false end
  local own = members(items[i].class)
  for j = i + 1, #items do
    local follower = items[j]
    if follower.last then return false end
    if follower.opaque or find(own, follower.class) then return true end
    if follower.quantifier == "" or follower.quantifier == "+" then return false end
  end
  return false
end

-- A pattern's cost on a subject of length L is `factor * L ^ power`.
local function analyse(pattern)
  if #pattern > 1000 then error("pattern too long", 0) end
  local items = parse(pattern)
  local power, factor, repeats = byte(pattern, 1) == 94 and 0 or 1, 1, false
  local certain = certain_rests(items)
  for i = 1, #items do
    local quantifier = items[i].quantifier
    if items[i].opaque then
      repeats = true
    elseif quantifier ~= "" then
      repeats = repeats or quantifier ~= "?"
      if gives_back(items, i, certain) then
        if quantifier == "?" then factor = factor * 2 else power = power + 1 end
      end
    end
  end
  if repeats then power = power + 1 else factor = factor * (#items + 1) end
  return { power = power, factor = factor }
end

local analysed, analysed_count = {}, 0

local function cost(name, subject, pattern, init)
  local found = analysed[pattern]
  if not found then
    local ok, result = pcall(analyse, pattern)
    go_on()
    if not ok then error(result, 3) end
    if analysed_count >= 200 then analysed, analysed_count = {}, 0 end
    analysed[pattern], analysed_count = result, analysed_count + 1
    found = result
  end
  init = tointeger(init) or 1
  local length = #subject
  if init > 1 then length = init <= length and length - init + 1 or 0 end
  local work = found.factor * length ^ found.power
  if work > max_work then
    error(format("string.%s: this pattern costs too much on %d bytes; anchor it or use fewer repetitions", name, length), 3)
  end
  charge(length // 16)
  return work
end

local DEAR <const> = 10000 -- steps from which the clock is worth a look afterwards

local function timed(...)
  look_at_clock()
  return ...
end

local function searching(name, work, share)
  return function(s, pattern, third, ...)
    s, pattern = text(s, 1, name), text(pattern, 2, name)
    if cost(name, s, pattern, share == 1 and third or nil) * share < DEAR then return work(s, pattern, third, ...) end
    look_at_clock()
    return timed(work(s, pattern, third, ...))
  end
end

guarded.match = searching("match", match, 1)

-- Lua takes a leading `^` of gmatch literally: it anchors nothing and makes nothing cheaper. A dear search looks at the
-- clock at each step, for an iterator that has ended searches the rest again whenever it is asked.
function guarded.gmatch(s, pattern, init)
  s, pattern = text(s, 1, "gmatch"), text(pattern, 2, "gmatch")
  if byte(pattern, 1) == 94 then pattern = "%" .. pattern end
  local step = gmatch(s, pattern, init)
  if cost("gmatch", s, pattern, init) < DEAR then return step end
  return function()
    look_at_clock()
    return timed(step())
  end
end

local pattern_find = searching("find", find, 1)

function guarded.find(s, pattern, init, plain)
  if not plain then return pattern_find(s, pattern, init) end
  s, pattern = text(s, 1, "find"), text(pattern, 2, "find")
  if #s * #pattern // 16 > max_work then error("string.find: too long", 2) end
  charge(#s // 16)
  return find(s, pattern, init, true)
end

local substitute = searching("gsub", gsub, 8)

function guarded.gsub(s, pattern, replacement, n)
  s = text(s, 1, "gsub")
  if #s > max_text // 8 then error("string.gsub: the subject is too long", 2) end
  return substitute(s, pattern, replacement, n)
end

local strings = getmetatable("")
strings.__index = guarded
strings.__metatable = false

-- Tables ---------------------------------------------------------------------------------------------------------

local function items(name, count)
  if count > max_steps // 10 then error("table." .. name .. ": too many items", 3) end
  if count > 0 then charge(count) end
end

local tables = { pack = table.pack }

function tables.concat(list, separator, first, last)
  first, last = tointeger(first or 1) or 1, tointeger(last or #list) or 0
  items("concat", last - first)
  if separator ~= nil and #text(separator, 2, "concat") * (last - first) > max_text then
    error("table.concat: the result would be too long", 2)
  end
  return concat(list, separator, first, last)
end

function tables.insert(list, ...)
  if select("#", ...) == 2 then items("insert", #list - (tointeger((...)) or 0)) end
  return insert(list, ...)
end

function tables.remove(list, ...)
  if select("#", ...) > 0 then items("remove", #list - (tointeger((...)) or 0)) end
  return remove(list, ...)
end

function tables.move(from, first, last, ...)
  items("move", (tointeger(last) or 0) - (tointeger(first) or 0))
  return table.move(from, first, last, ...)
end

function tables.unpack(list, first, last)
  items("unpack", (tointeger(last or #list) or 0) - (tointeger(first or 1) or 1))
  return table.unpack(list, first, last)
end

local function less(a, b) return a < b end

local function sift(list, order, root, last)
  local value = list[root]
  while 2 * root <= last do
    local child = 2 * root
    if child < last and order(list[child], list[child + 1]) then child = child + 1 end
    if not order(value, list[child]) then break end
    list[root] = list[child]
    root = child
  end
  list[root] = value
end

-- A heap sort in Lua, so that the budget sees every comparison.
function tables.sort(list, order)
  if order ~= nil and type(order) ~= "function" then
    error("bad argument #2 to 'sort' (function expected, got " .. type(order) .. ")", 2)
  end
  order = order or less
  local n = #list
  items("sort", n)
  for root = n // 2, 1, -1 do sift(list, order, root, n) end
  for last = n, 2, -1 do
    list[1], list[last] = list[last], list[1]
    sift(list, order, 1, last - 1)
  end
end

-- Errors, coroutines and metatables ------------------------------------------------------------------------------

local function caught_pcall(...) return go_on(pcall(...)) end

-- Hooks sleep while a message handler runs for an error that a hook raised, so handlers run after the error has passed.
local function handled(handler, ok, ...)
  if spent then error(spent, 0) end
  if ok then return true, ... end
  local _, result = go_on(pcall(handler, ...))
  return false, result
end

local function caught_xpcall(body, handler, ...) return handled(handler, pcall(body, ...)) end

local create, resume, close = coroutine.create, coroutine.resume, coroutine.close

-- A new coroutine has a hook of its own and could run one interval unseen: it pays for that in advance.
local function watched(body)
  charge(INTERVAL)
  local thread = create(body)
  sethook(thread, tick, "", INTERVAL)
  return thread
end

local function unwrap(ok, ...)
  if spent then error(spent, 0) end
  if not ok then error((...), 0) end
  return ...
end

local coroutines = {
  create = watched,
  wrap = function(body)
    local thread = watched(body)
    return function(...) return unwrap(resume(thread, ...)) end
  end,
  resume = function(...) return go_on(resume(...)) end,
  close = function(thread)
    if spent then error(spent, 0) end -- hooks sleep in a coroutine that the budget ended
    return go_on(close(thread))
  end,
  yield = coroutine.yield,
  status = coroutine.status,
  running = coroutine.running,
  isyieldable = coroutine.isyieldable,
}

-- Hooks sleep while a finalizer runs, so there are none.
local function set_metatable(value, metatable)
  if type(metatable) == "table" and rawget(metatable, "__gc") ~= nil then
    error("finalizers (__gc) are not available", 2)
  end
  return setmetatable(value, metatable)
end

-- The environment ------------------------------------------------------------------------------------------------

local function copy(from)
  local to = {}
  for key, value in next, from do to[key] = value end
  return to
end

local texts8 = copy(utf8)
for _, name in next, { "len", "codepoint", "offset", "codes" } do texts8[name] = linear(name, utf8[name], 16) end

local env = {
  _VERSION = _VERSION, assert = assert, error = error, getmetatable = getmetatable, ipairs = ipairs, next = next,
  pairs = pairs, pcall = caught_pcall, rawequal = rawequal, rawget = rawget, rawlen = rawlen, rawset = rawset,
  select = select, setmetatable = set_metatable, tonumber = tonumber, tostring = tostring, type = type,
  xpcall = caught_xpcall, string = guarded, table = tables, math = copy(math), utf8 = texts8, coroutine = coroutines,
}
env._G = env

-- Runs `body` within a fresh budget. Returns true and its results; or false, the error as text, and whether it was an
-- overrun rather than an ordinary error.
function settle(ok, ...)
  local reason = spent
  inside, used, started, spent = false, 0, nil, nil
  if reason then return false, reason, true end
  if ok then return true, ... end
  local problem = (...)
  if type(problem) ~= "string" then problem = "(error object is a " .. type(problem) .. " value)" end
  return false, problem, problem == "not enough memory"
end

function bounded(body, ...)
  inside, used, started, spent = true, 0, nil, nil
  return settle(pcall(body, ...))
end

sethook(tick, "", INTERVAL)
return env, bounded, charge, watched
