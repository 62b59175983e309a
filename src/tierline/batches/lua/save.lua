-- Write down how a batch is. ARGV: the batch, the owner, 1 to give it back; state, due, api, sent, fails, note, trace,
-- fetches.
local batch, owner = ARGV[2], ARGV[3]
local key = P .. 'batch:' .. batch
if not has(batch, owner) then
  return '[false]'
end
call('HSET', key, 'state', ARGV[5], 'due', ARGV[6], 'api', ARGV[7], 'sent', ARGV[8], 'fails', ARGV[9], 'note', ARGV[10],
  'trace', ARGV[11], 'fetches', ARGV[12])
if ARGV[7] ~= '' then
  call('HSET', P .. 'api', ARGV[7], batch)
end
if ARGV[4] == '1' then
  call('HSET', key, 'owner', '')
  disown(owner, 'b' .. batch)
  call('ZADD', P .. 'due', ARGV[6], batch)
end
if ARGV[5] == 'done' then
  call('ZREM', P .. 'due', batch)
  call('SREM', P .. 'open:' .. call('HGET', key, 'job'), batch)
end
return '[true]'
