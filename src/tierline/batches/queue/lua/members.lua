-- Requests of a group. ARGV: the group, the place before, how many at most.
local found = {}
local range = call('ZRANGEBYSCORE', P .. 'in:' .. ARGV[2], '(' .. ARGV[3], '+inf', 'LIMIT', 0, ARGV[4])
for _, handle in ipairs(range) do
  local each = call('HMGET', key(handle), 'place', 'request')
  found[#found + 1] = {each[1], handle, each[2]}
end
return cjson.encode(found)
