scene {
  description = "Asks a JT/T 808 terminal where it is and lets it report more often for a while, then as before."
    .. " args: device, seconds (60), interval_s (10)",
}

local REPORT_INTERVAL <const> = "0x0029" -- seconds between position reports

local function must(what, ended)
  if ended.status ~= "acknowledged" then
    error(string.format("%s: %s %s", what, ended.status, ended.error or ""), 0)
  end
  return ended.result or {}
end

function run(args)
  local device = args.device or error("args.device names the terminal", 0)
  local seconds, interval_s = args.seconds or 60, args.interval_s or 10

  must("locate", command(device, "locate", {}, 15))
  local answer = must("query", command(device, "query_parameters", { ids = { REPORT_INTERVAL } }, 15))
  local before = (answer.parameters or {})[REPORT_INTERVAL] or 30

  must("report often", command(device, "set_parameters", { parameters = { [REPORT_INTERVAL] = interval_s } }, 15))
  log(device, "reports every", interval_s, "s, before every", before, "s")
  wait(seconds)
  must("report as before", command(device, "set_parameters", { parameters = { [REPORT_INTERVAL] = before } }, 15))
end
