-- What a scene file may say: `scene`, `run`, `command`, `notify`, `plugin`, `report`, `wait`, `log`, `now`; and the calls
-- by which the worker drives its runs, each a coroutine.
local env, bounded, watched, encode, decode, line, max_wait_s, max_args, max_lines, line_room, packed, told = ...

local error, type, next, rawget = error, type, next, rawget
local format, concat, whole, utf8_length = string.format, table.concat, math.tointeger, utf8.len
local yield, resume, running, status = coroutine.yield, coroutine.resume, coroutine.running, coroutine.status

local about = { description = "" }
local runs, current = {}, nil
local now_ms, lines, logged = 0, 0, {}
local ASKED <const> = {} -- yielded by the calls below, so that a bare coroutine.yield is told apart
local asked

function env.scene(given)
  if current then error("scene{...} belongs to the top of the file", 2) end
  if type(given) ~= "table" then error("scene takes a table, as in scene{description = ...}", 2) end
  for key in next, given do
    if key ~= "description" then error(format("scene: unknown field '%s'", key), 2) end
  end
  if type(given.description) ~= "string" then error("scene: description must be text", 2) end
  about.description = given.description
end

local function ask(what, request, ...)
  if running() ~= current then
    error(what .. " works in run() itself, not while the file loads and not in a coroutine of your own", 3)
  end
  asked = { request, ... }
  return yield(ASKED)
end

local function finite(value, low, high) return type(value) == "number" and value >= low and value <= high end

local function seconds_of(timeout, what, most)
  if timeout == nil then return nil end
  if not (finite(timeout, 0, most) and timeout > 0) then
    error(format("%s: timeout is in seconds, up to %d", what, most), 3)
  end
  return timeout * 1.0
end

local LEAST_WAIT_S <const> = 0.1 -- a loop around wait(0) is to leave the gateway to others

function env.wait(seconds)
  if not finite(seconds, 0, max_wait_s) then
    error(format("wait takes seconds from 0 to %d", max_wait_s), 2)
  end
  ask("wait", "wait", seconds < LEAST_WAIT_S and LEAST_WAIT_S or seconds * 1.0)
end

function env.command(device, name, args, timeout)
  if type(device) ~= "string" or type(name) ~= "string" then error("command takes a device, a name and arguments", 2) end
  if args ~= nil and type(args) ~= "table" then error("command: arguments must be a table", 2) end
  local timeout_s = seconds_of(timeout, "command", 3600)
  local request = { type = "command", device = device, name = name, args = args, timeout_s = timeout_s }
  return decode(ask("command", "ask", encode(request, max_args, "command")))
end

local TEXT_CHARS <const> = 4000 -- a notification's text, as everywhere
local NOTICE <const> = { title = true, text = true, severity = true }
local SEVERITIES <const> = { info = true, warning = true, minor = true, major = true, critical = true }

function env.notify(channel, given)
  if type(channel) ~= "string" or type(given) ~= "table" then
    error("notify takes a channel and a table, as in notify('ops', {title = ...})", 2)
  end
  for key, value in next, given do
    if not NOTICE[key] then error(format("notify: unknown field '%s'", key), 2) end
    if type(value) ~= "string" then error(format("notify: %s must be text", key), 2) end
  end
  if not given.title then error("notify: title is missing", 2) end
  local text = given.text or ""
  if #text > 4 * TEXT_CHARS or (utf8_length(text) or TEXT_CHARS + 1) > TEXT_CHARS then
    error(format("notify: text must be text of at most %d characters", TEXT_CHARS), 2)
  end
  if given.severity and not SEVERITIES[given.severity] then
    error("notify: severity is one of info, warning, minor, major, critical", 2)
  end
  local request = { type = "notify", channel = channel, title = given.title, text = given.text, severity = given.severity }
  return decode(ask("notify", "ask", encode(request, max_args, "notify")))
end

env.plugin = {
  call = function(id, args, timeout)
    packed(id, args) -- says what is wrong with them where the script can see it
    local request = { type = "plugin", plugin = id, args = args, timeout_s = seconds_of(timeout, "plugin.call", 60) }
    return told(ask("plugin.call", "ask", encode(request, max_args, "plugin.call", true)))
  end,
}

local REPORT <const> = { plugin = true, device = true, property = true, from = true, to = true, args = true }

env.report = {
  run = function(given)
    if type(given) ~= "table" then error("report.run takes a table, as in report.run{plugin = ...}", 2) end
    for key in next, given do
      if not REPORT[key] then error(format("report.run: unknown field '%s'", key), 2) end
    end
    local from, to = whole(given.from), whole(given.to)
    if not (from and to) then error("report.run: from and to are epoch milliseconds", 2) end
    for _, key in next, { "plugin", "device", "property" } do
      if type(given[key]) ~= "string" then error(format("report.run: %s must be text", key), 2) end
    end
    packed("report", given.args) -- says what is wrong with them where the script can see it
    local request = {
      type = "report", plugin = given.plugin, device = given.device, property = given.property, from_ms = from, to_ms = to,
      args = given.args,
    }
    return told(ask("report.run", "ask", encode(request, max_args, "report.run")))
  end,
}

function env.log(...)
  lines = lines + 1
  if lines <= max_lines then logged[#logged + 1] = line(line_room, ...) end
end
env.print = env.log
function env.now() return now_ms end

-- Calls of the worker --------------------------------------------------------------------------------------------

local function step(thread, ...)
  local ok, token = resume(thread, ...)
  if not ok then error(token, 0) end
  if status(thread) == "dead" then return "done" end
  if token ~= ASKED then error("run() itself cannot yield; use wait or command", 0) end
  return asked[1], asked[2]
end

-- Answers the outcome (`wait`, `ask`, `done`, `failed`), its argument, whether a budget was overrun, the log lines.
local function settle(id, ok, outcome, argument)
  local thread = current
  current, asked = nil, nil
  local log = concat(logged, "\n")
  if not ok then
    runs[id] = nil
    return "failed", outcome, argument, log
  end
  runs[id] = outcome ~= "done" and thread or nil
  return outcome, argument, false, log
end

local function go(id, thread, at_ms, argument)
  current, now_ms, lines, logged = thread, at_ms, 0, {}
  return settle(id, bounded(step, thread, argument))
end

local function begin(id, at_ms, args)
  local ok, thread = bounded(watched, rawget(env, "run"))
  if not ok then return "failed", thread, false, "" end
  return go(id, thread, at_ms, decode(args))
end

local function continue(id, at_ms, result) return go(id, runs[id], at_ms, result) end
local function drop(id) runs[id] = nil end

local function start(source, name)
  local chunk, problem = load(source, "@" .. name, "t", env)
  if not chunk then return problem end
  local ok, failure = bounded(chunk)
  if not ok then return failure end
  if type(rawget(env, "run")) ~= "function" then return "the file has no function run(args)" end
  return nil, encode(about, 1 << 16, "scene")
end

return start, begin, continue, drop
