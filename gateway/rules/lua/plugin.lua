-- Calls of plugins: checks and packs what a script gives, unpacks what came back. Knows neither rules nor scenes.
local encode, decode, charge, room = ...

local error, pcall, type = error, pcall, type
local BYTES_A_STEP <const> = 16 -- what C does with so many bytes costs an instruction

-- The arguments as bytes; misuse is an error of the script, at the place of its call.
local function packed(id, args)
  if type(id) ~= "string" or #id > 64 then error("plugin.call takes a plugin's id and a table of arguments", 3) end
  if args == nil then args = {} end
  if type(args) ~= "table" then error("plugin.call: arguments must be a table", 3) end
  local bytes = encode(args, room, "plugin.call: arguments", true)
  charge(#bytes // BYTES_A_STEP)
  return bytes
end

-- What the plugin gave; or nil and why there is nothing.
local function told(bytes)
  charge(#bytes // BYTES_A_STEP)
  local ok, answer = pcall(decode, bytes)
  charge(0) -- an error of the budget is not to be taken for one of the answer
  if not ok then return nil, "the plugin's answer has keys or values that Lua has not" end
  if answer[1] then return answer[2] end
  return nil, answer[2]
end

return packed, told
