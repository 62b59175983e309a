-- Records, the newest first. ARGV: how many at most, settled before when ('+inf': any); or an id.
if ARGV[2] == 'id' then
  return cjson.encode({call('HGET', RECORDS, ARGV[1]) or nil})
end
local found = {}
for _, id in ipairs(call('ZREVRANGEBYSCORE', DECISIONS, '(' .. ARGV[2], '-inf', 'LIMIT', 0, ARGV[1])) do
  found[#found + 1] = call('HGET', RECORDS, id) or nil
end
return cjson.encode(found)
