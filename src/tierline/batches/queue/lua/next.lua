-- Seconds until something is to be done. ARGV: targets.
local first = nil
local function look(set)
  local found = call('ZRANGE', P .. set, 0, 0, 'WITHSCORES')
  local at = found[2] and tonumber(found[2])
  if at and (first == nil or at < first) then
    first = at
  end
end
ripe('refuse')
ripe('defer')
for _, set in ipairs({'groups', 'act', 'late', 'calling', 'later:refuse', 'later:defer', 'fill:refuse', 'fill:defer'}) do
  look(set)
end
for at = 2, #ARGV do
  look('out:' .. ARGV[at])
end
if first == nil then
  return '[]'
end
return cjson.encode({string.format('%.6f', math.max(0, first - now))})
