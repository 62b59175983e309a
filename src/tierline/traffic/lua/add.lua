-- Add what a worker has seen, once for each number.
-- ARGV: the worker, when it started, its breakers, the number; for how long workers are remembered; how many names a day
-- may have, how many decisions are kept; rows and records, as JSON; the moment after which nothing can have been settled.
-- A row is: kind, name, sums, then {level, start, seconds until it is dropped} of each piece.
local worker, number = ARGV[1], tonumber(ARGV[4])
local most, kept = tonumber(ARGV[6]), tonumber(ARGV[7])
local now, known, last = seconds(), call('HGET', WORKERS, worker), 0
if known then
  last = cjson.decode(known)[3]
else
  local all = call('HGETALL', WORKERS)
  for place = 2, #all, 2 do
    if cjson.decode(all[place])[2] <= now - tonumber(ARGV[5]) then
      call('HDEL', WORKERS, all[place - 1])
    end
  end
end
call('HSET', WORKERS, worker, cjson.encode({ARGV[2], now, math.max(last, number), ARGV[3]}))
if number <= last then
  return '[]'
end

local totals, ends = {}, {}
for _, row in ipairs(cjson.decode(ARGV[8])) do
  local kind, name, sums = row[1], row[2], row[3]
  if kind == 'tier' then
    local hour = KEY .. 'tier:' .. row[4][2]
    call('HSET', hour, name, plus(call('HGET', hour, name), sums))
    ends[hour] = row[4][3]
  else
    local cost = string.match(sums, '^%S+ (%S+)') or '0'
    for place = 4, #row do
      if row[place][1] == '86400' then
        local day = piece_of(kind, row[place][1], row[place][2]) .. ':cost'
        if not call('ZSCORE', day, name) and call('ZCARD', day) >= most then
          name = OTHER
        end
      end
    end
    for place = 4, #row do
      local piece = piece_of(kind, row[place][1], row[place][2])
      call('HSET', piece, name, plus(call('HGET', piece, name), sums))
      call('ZINCRBY', piece .. ':cost', cost, name)
      totals[piece] = plus(totals[piece], sums)
      ends[piece], ends[piece .. ':cost'] = row[place][3], row[place][3]
    end
  end
end
for piece, sums in pairs(totals) do
  call('HSET', piece, '', plus(call('HGET', piece, ''), sums))
end
for key, left in pairs(ends) do
  call('EXPIRE', key, left)
end

for _, record in ipairs(cjson.decode(ARGV[9])) do
  call('ZADD', DECISIONS, record[2], record[1])
  call('HSET', RECORDS, record[1], record[3])
end
local function drop(ids)
  for _, id in ipairs(ids) do
    call('ZREM', DECISIONS, id)
    call('HDEL', RECORDS, id)
  end
end
drop(call('ZRANGEBYSCORE', DECISIONS, '(' .. ARGV[10], '+inf'))
drop(call('ZRANGE', DECISIONS, 0, -1 - kept))
return '[]'
