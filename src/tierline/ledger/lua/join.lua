-- Who is there, and whose data these are. ARGV: this member, the epoch that it knows ('': none), an epoch to begin
-- if there is none, the last time that it saw, '1' to look at the memory of the server.
local member, mine, fresh, seen = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])
local epoch, suspect = meta[1], meta[2]
if not epoch then
  epoch = fresh
  if seen > now then
    now, now_text = seen, text(seen) -- windows that have ended stay so
  end
  call('HSET', META, 'epoch', epoch, 'born', text(now), 'now', text(now), 'confirmed', 0)
  if mine ~= '' then
    suspect = true
  end
elseif mine ~= '' and mine ~= epoch and tonumber(call('HGET', META, 'confirmed')) < seen
  and call('SISMEMBER', KEY .. 'heard', member) == 0 then
  suspect = true
end
if suspect then
  if mine ~= '' and mine ~= epoch then
    call('SADD', KEY .. 'expected', member)
  end
  call('HSETNX', META, 'suspect', text(wall))
  return answer('suspect', epoch)
end
call('ZREMRANGEBYSCORE', MEMBERS, '-inf', text(wall - 60))
call('ZADD', MEMBERS, text(wall), member)
local evicts = false
if ARGV[9] == '1' then
  local info = redis.pcall('INFO', 'memory')
  if type(info) == 'string' and tonumber(string.match(info, 'maxmemory:(%d+)') or 0) > 0 then
    evicts = string.match(info, 'maxmemory_policy:([%w-]+)') or false
  end
end
return answer('open', epoch, meta[3] or '0', call('HGETALL', LIMITS), call('ZRANGE', MEMBERS, 0, -1), evicts)
