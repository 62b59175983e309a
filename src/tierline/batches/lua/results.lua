-- Requests in order, up to the first without a result. ARGV: the job, the place before, how many at most.
local job, found = ARGV[2], {}
for _, place in ipairs(call('ZRANGEBYSCORE', P .. 'places:' .. job, '(' .. ARGV[3], '+inf', 'LIMIT', 0, ARGV[4])) do
  local each = item(job, place)
  if each[STATE] ~= FINAL then
    break
  end
  found[#found + 1] = {place, each, call('HGET', P .. 'results:' .. job, place)}
end
return cjson.encode(found)
