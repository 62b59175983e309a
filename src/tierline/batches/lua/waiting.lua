-- Requests that wait in a batch, by their hold. ARGV: the batch, the hold, the place before, how many at most.
local job, limit, found = call('HGET', P .. 'batch:' .. ARGV[2], 'job'), tonumber(ARGV[5]), {}
for _, place in ipairs(call('ZRANGEBYSCORE', P .. 'wait:' .. ARGV[2], '(' .. ARGV[4], '+inf')) do
  local each = #found < limit and item(job, place)
  if each and each[HOLD] == ARGV[3] then
    found[#found + 1] = {place, each[WORST], each[OUTCOME]}
  end
end
return cjson.encode(found)
