scene {
  description = "Makes yesterday's shift report of one property of each device; for a schedule after the last shift's end."
    .. " args: devices, property, timezone_offset_min (0), day_starts_h (6), shifts (three of 8 hours), and more for the plugin",
}

local HOUR_MS <const>, DAY_MS <const> = 3600000, 86400000
local OURS <const> = { devices = true, property = true, day_starts_h = true }

local THREE_SHIFTS <const> = {
  { name = "early", start = "06:00", ["end"] = "14:00" },
  { name = "late", start = "14:00", ["end"] = "22:00" },
  { name = "night", start = "22:00", ["end"] = "06:00" },
}

function run(args)
  local devices = args.devices or error("args.devices is a list of device ids", 0)
  local property = args.property or error("args.property names what is reported", 0)
  local given = { timezone_offset_min = 0, shifts = THREE_SHIFTS }
  for key, value in pairs(args) do
    if not OURS[key] then given[key] = value end
  end

  local offset_ms = given.timezone_offset_min * 60000 - (args.day_starts_h or 6) * HOUR_MS
  local to = math.tointeger((now() + offset_ms) // DAY_MS * DAY_MS - offset_ms)
  local failed = 0
  for _, device in ipairs(devices) do
    local report, why = report.run {
      plugin = "shift-report", device = device, property = property, from = to - DAY_MS, to = to, args = given,
    }
    if report then
      log(device, "report", report.id, "of", report.points, "points")
    else
      failed = failed + 1
      log(device, "no report:", why)
    end
  end
  if failed > 0 then error(string.format("%d of %d reports failed", failed, #devices), 0) end
end
