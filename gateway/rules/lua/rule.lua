-- What a rule file may say: `rule`, `on`, `alarm`, `device`, `scene`, `notify`, `plugin`, `log`, `now`; and the calls by which the
-- worker drives it.
local env, bounded, encode, decode, line, max_state, max_actions, max_action_bytes, max_lines, line_room,
  packed, told, call_plugin, max_plugin_calls = ...

local error, type, next, setmetatable = error, type, next, setmetatable
local format, pack, concat = string.format, string.pack, table.concat
local EMPTY <const> = "\x80"

local about = { name = "", description = "" }
local handlers, subscriptions, awaited = {}, {}, {}
local loading = true
local states, kept = {}, {} -- by device: the handler's table, and the bytes the gateway keeps of it
local now_ms, present, actions, action_bytes, lines = 0, "", {}, 0, 0

local function options(value, name, allowed)
  if value == nil then value = {} end
  if type(value) ~= "table" then error(name .. " takes a table, as in " .. name .. "{...}", 3) end
  for key in next, value do
    if not allowed[key] then error(format("%s: unknown field '%s'", name, key), 3) end
  end
  return value
end

local function word(value, what, fallback, most)
  if value == nil and fallback ~= nil then return fallback end
  most = most or 1000
  if type(value) ~= "string" or #value > most or not utf8.len(value) then
    error(format("%s must be text of at most %d bytes", what, most), 3)
  end
  return value
end

-- Declarations ---------------------------------------------------------------------------------------------------

function env.rule(given)
  if not loading then error("rule{...} belongs to the top of the file", 2) end
  given = options(given, "rule", { name = true, description = true })
  about.name = word(given.name, "rule: name", "")
  about.description = word(given.description, "rule: description", "")
end

local function subscriber(kind, allowed)
  local name = "on." .. kind
  return function(given)
    if not loading then error(name .. " belongs to the top of the file", 2) end
    given = options(given, name, allowed)
    if #subscriptions >= 100 then error(name .. ": a file may subscribe 100 times", 2) end
    local wanted = { kind = kind }
    for key, value in next, given do wanted[key] = word(value, name .. ": " .. key) end
    local index = #subscriptions + 1
    subscriptions[index], awaited[index] = wanted, name
    return function(handler)
      if type(handler) ~= "function" then error(name .. "{...} takes a function", 2) end
      handlers[index], awaited[index] = handler, nil
    end
  end
end

env.on = {
  message = subscriber("message", { product = true, property = true }),
  event = subscriber("event", { type = true }),
}

-- Actions --------------------------------------------------------------------------------------------------------

local function act(fields)
  if loading then error("actions belong into a handler", 3) end
  if #actions >= max_actions then error(format("more than %d actions in one call", max_actions), 3) end
  local bytes = encode(fields, max_action_bytes, fields.type)
  action_bytes = action_bytes + #bytes
  if action_bytes > max_action_bytes then error(format("actions of more than %d bytes in one call", max_action_bytes), 3) end
  actions[#actions + 1] = bytes
end

local function data_of(value, what)
  if value ~= nil and type(value) ~= "table" then error(what .. " must be a table", 3) end
  return value
end

local SEVERITIES <const> = { info = true, warning = true, minor = true, major = true, critical = true }

local function need_device(what)
  if present == "" then error(what .. ": this event is of no device", 3) end
end

env.alarm = {
  raise = function(given)
    given = options(given, "alarm.raise", { severity = true, message = true, data = true })
    need_device("alarm.raise")
    local severity = given.severity or "warning"
    if not SEVERITIES[severity] then
      error("alarm.raise: severity is one of info, warning, minor, major, critical", 2)
    end
    local message, data = word(given.message, "alarm.raise: message", ""), data_of(given.data, "alarm.raise: data")
    act { type = "raise", severity = severity, message = message, data = data }
  end,
  clear = function(given)
    options(given, "alarm.clear", {})
    need_device("alarm.clear")
    act { type = "clear" }
  end,
}

env.device = {
  command = function(given)
    given = options(given, "device.command", { name = true, args = true, device = true, timeout = true })
    local timeout = given.timeout
    if timeout ~= nil and not (type(timeout) == "number" and timeout > 0 and timeout <= 3600) then
      error("device.command: timeout is in seconds, up to 3600", 2)
    end
    local target = word(given.device, "device.command: device", present)
    if target == "" then error("device.command: this event is of no device; name one", 2) end
    local name, args = word(given.name, "device.command: name"), data_of(given.args, "device.command: args")
    act { type = "command", name = name, device = target, args = args, timeout_s = timeout and timeout * 1.0 }
  end,
}

env.scene = {
  run = function(given)
    given = options(given, "scene.run", { name = true, args = true })
    local name, args = word(given.name, "scene.run: name"), data_of(given.args, "scene.run: args")
    act { type = "scene", name = name, args = args }
  end,
}

local TEXT_CHARS <const> = 4000 -- a notification's text, as everywhere; services take little more

local function prose(value)
  if value == nil then return "" end
  if type(value) ~= "string" or #value > 4 * TEXT_CHARS or (utf8.len(value) or TEXT_CHARS + 1) > TEXT_CHARS then
    error(format("notify: text must be text of at most %d characters", TEXT_CHARS), 3)
  end
  return value
end

function env.notify(given)
  given = options(given, "notify", { channel = true, title = true, text = true, severity = true })
  local severity = given.severity or "info"
  if not SEVERITIES[severity] then error("notify: severity is one of info, warning, minor, major, critical", 2) end
  local channel, title = word(given.channel, "notify: channel"), word(given.title, "notify: title")
  act { type = "notify", channel = channel, title = title, text = prose(given.text), severity = severity }
end

-- Waits for the plugin: what it gives is at hand in the same call of the rule.
env.plugin = {
  call = function(id, args)
    if loading then error("plugin.call belongs into a handler", 2) end
    local answer = call_plugin(id, packed(id, args))
    if not answer then error(format("more than %d plugin calls in one call", max_plugin_calls), 2) end
    return told(answer)
  end,
}

local logged = {}
local function logger(level)
  return function(...)
    lines = lines + 1
    if lines > max_lines then return end
    logged[#logged + 1] = encode({ type = "log", level = level, text = line(line_room, ...) }, line_room + 100, "log")
  end
end

env.log = { info = logger("info"), warn = logger("warning"), error = logger("error") }
env.print = env.log.info
function env.now() return now_ms end

-- Calls of the worker --------------------------------------------------------------------------------------------

local function turn(handler, subject, device)
  local bytes, state = kept[device], states[device]
  if not state then
    state = bytes and decode(bytes) or {}
    states[device] = state
  end
  handler(subject, state)
  if next(state) == nil then
    states[device] = nil
    if bytes == nil then return nil end
    kept[device] = nil
    return EMPTY
  end
  local after = encode(state, max_state, "state")
  if after == bytes then return nil end
  kept[device] = after
  return after
end

-- Log lines and actions as one array, and how many lines were dropped; starts over for the next call.
local function sequence(with_actions)
  local count = #logged + (with_actions and #actions or 0)
  local bytes, dropped = nil, lines > max_lines and lines - max_lines or 0
  if count > 0 then bytes = pack(">BI4", 0xdd, count) .. concat(logged) .. (with_actions and concat(actions) or "") end
  actions, logged, action_bytes, lines = {}, {}, 0, 0
  return bytes, dropped
end

-- Answers nothing when nothing changed; else the outcome (0 done, 1 error, 2 overrun), the new state or the error, and
-- if there are any the actions and how many log lines were dropped.
local function finish(device, ok, result, overrun)
  if ok then
    if lines == 0 and #actions == 0 then
      if result == nil then return end
      return 0, result
    end
    return 0, result, sequence(true)
  end
  states[device] = nil -- the next call starts from what was kept: a call that fails changes nothing
  return overrun and 2 or 1, result, sequence(false)
end

local function call(index, device, subject)
  present = device
  return finish(device, bounded(turn, handlers[index], subject, device))
end

local GOOD <const> = {
  __index = function() return "good" end,
  __newindex = function() error("quality cannot be changed", 2) end,
  __metatable = false,
}
local ALL_GOOD <const> = setmetatable({}, GOOD)

local function on_message(index, device, product, observed_at, received_at, quality, values)
  local qualities = quality and setmetatable(decode(quality), GOOD) or ALL_GOOD
  return call(index, device, {
    device = device, product = product, observed_at = observed_at, received_at = received_at, values = values,
    quality = qualities,
  })
end

local function on_packed(index, device, product, observed_at, received_at, quality, values)
  return on_message(index, device, product, observed_at, received_at, quality, decode(values))
end

local function on_event(index, device, kind, at, data)
  return call(index, device, { type = kind, device = device ~= "" and device or nil, at = at, data = decode(data) })
end

-- Loads the file; answers nil and its declarations, or the error.
local function start(source, name)
  local chunk, problem = load(source, "@" .. name, "t", env)
  if not chunk then return problem end
  local ok, failure = bounded(chunk)
  loading = false
  if not ok then return failure end
  local _, missing = next(awaited)
  if missing then return missing .. "{...} has no function after it" end
  if #subscriptions == 0 then return "the file subscribes to nothing; use on.message{...} or on.event{...}" end
  return nil, encode({ name = about.name, description = about.description, subscriptions = subscriptions }, 1 << 20, "rule")
end

local function set_state(device, bytes) kept[device], states[device] = bytes, nil end
local function set_now(at_ms) now_ms = at_ms end

return start, on_message, on_packed, on_event, set_state, set_now
