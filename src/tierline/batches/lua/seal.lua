-- A batch is full. ARGV: the batch, the owner.
local key = P .. 'batch:' .. ARGV[2]
if call('HGET', key, 'state') ~= 'filling' or not has(ARGV[2], ARGV[3]) then
  return '[false]'
end
call('HSET', key, 'state', 'sealed', 'owner', '', 'due', '0')
call('ZADD', P .. 'due', 0, ARGV[2])
disown(ARGV[3], 'b' .. ARGV[2])
return '[true]'
