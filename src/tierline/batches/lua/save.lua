-- Write down how a batch is. ARGV: the batch, the owner, 1 to give it back; state, due, api, number, bytes, sent,
-- fails, note, trace, fetches.
local batch, owner = ARGV[2], ARGV[3]
local key = P .. 'batch:' .. batch
if not has(batch, owner) then
  return '[false]'
end
call('HSET', key, 'state', ARGV[5], 'due', ARGV[6], 'api', ARGV[7], 'number', ARGV[8], 'bytes', ARGV[9],
  'sent', ARGV[10], 'fails', ARGV[11], 'note', ARGV[12], 'trace', ARGV[13], 'fetches', ARGV[14])
if ARGV[7] ~= '' then
  call('HSET', P .. 'api', ARGV[7], batch)
end
if ARGV[4] == '1' then
  call('HSET', key, 'owner', '')
  disown(owner, 'b' .. batch)
  call('ZADD', P .. 'due', ARGV[6], batch)
end
if ARGV[5] == 'done' then
  touch(call('HGET', key, 'job'))
  call('ZREM', P .. 'due', batch)
  call('SREM', P .. 'open:' .. call('HGET', key, 'job'), batch)
end
return '[true]'
