rule {
  name = "overspeed",
  description = "Raises above 80 km/h and clears below 75; ignores doubtful points and points that arrive late.",
}

local RAISE <const>, CLEAR <const> = 80, 75

on.message { product = "jt808-terminal", property = "speed_km_h" } (function(msg, state)
  local speed = msg.values.speed_km_h
  if msg.quality.speed_km_h ~= "good" or speed == nil then return end
  local at = math.min(msg.observed_at, msg.received_at) -- a clock that runs ahead must not make every later point late
  if state.seen and state.seen <= msg.received_at and at < state.seen then return end
  state.seen = at

  if speed > RAISE and not state.over then
    state.over = true
    alarm.raise {
      severity = "major",
      message = string.format("driving at %g km/h", speed),
      data = { speed_km_h = speed, latitude = msg.values.latitude, longitude = msg.values.longitude },
    }
  elseif speed < CLEAR and state.over then
    state.over = nil
    alarm.clear {}
  end
end)
