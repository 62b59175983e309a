-- Keep verdicts, and drop those that are too old or too many.
-- ARGV: how many to keep; then for each its key, its account, its value, and for how long it counts (ms).
local MOST_DROPPED = 1000 -- at once: the server does nothing else meanwhile
local size, time = tonumber(ARGV[1]), now()
for place = 2, #ARGV, 4 do
  local key, account, value, ttl = ARGV[place], ARGV[place + 1], ARGV[place + 2], tonumber(ARGV[place + 3])
  local kept = redis.pcall('HSET', of(key), 'v', value, 'a', account)
  if type(kept) == 'table' and kept.err then -- something else has its name
    call('DEL', of(key))
    call('HSET', of(key), 'v', value, 'a', account)
  end
  call('PEXPIRE', of(key), ms(ttl))
  call('ZADD', ALL, ms(time + ttl), key)
  if call('PTTL', ALL) < ttl then
    call('PEXPIRE', ALL, ms(ttl))
  end
end
call('ZREMRANGEBYSCORE', ALL, '-inf', ms(time))
local over = math.min(call('ZCARD', ALL) - size, MOST_DROPPED)
if over > 0 then
  local oldest = call('ZPOPMIN', ALL, over)
  for place = 1, #oldest, 2 do
    call('DEL', of(oldest[place]))
  end
end
return '[]'
