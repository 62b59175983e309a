-- Requests in order, up to the first without a result. ARGV: the job, the place before, how many at most.
local job, before, found = ARGV[2], tonumber(ARGV[3]), {}
for _, place in ipairs(call('ZRANGEBYSCORE', P .. 'places:' .. job, '(' .. ARGV[3], '+inf', 'LIMIT', 0, ARGV[4])) do
  local each = item(job, place)
  if each[STATE] ~= FINAL or tonumber(place) ~= before + 1 then
    break
  end
  before = before + 1
  found[#found + 1] = {place, each, call('HGET', P .. 'results:' .. job, place)}
end
return cjson.encode(found)
