-- Hours by tier, and who is alive. ARGV: for how long a worker counts as alive; hours, as JSON.
-- Answers with: {hour, tiers} of each; {id, worker} of those that are alive.
local hours, alive = {}, {}
for _, hour in ipairs(cjson.decode(ARGV[2])) do
  local found = call('HGETALL', KEY .. 'tier:' .. hour)
  if #found > 0 then
    hours[#hours + 1] = {hour, found}
  end
end
local all, since = call('HGETALL', WORKERS), seconds() - tonumber(ARGV[1])
for place = 2, #all, 2 do
  local worker = cjson.decode(all[place])
  if worker[2] > since then
    alive[#alive + 1] = {all[place - 1], worker}
  end
end
return cjson.encode({hours, alive})
