-- Requests that are in a batch. ARGV: the batch, the place before, how many at most.
local job = call('HGET', P .. 'batch:' .. ARGV[2], 'job')
local found = {}
for _, place in ipairs(call('ZRANGEBYSCORE', P .. 'in:' .. ARGV[2], '(' .. ARGV[3], '+inf', 'LIMIT', 0, ARGV[4])) do
  found[#found + 1] = {place, call('HGET', P .. 'payloads:' .. job, place)}
end
return cjson.encode(found)
