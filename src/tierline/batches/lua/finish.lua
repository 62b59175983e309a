-- The owner submits no more. ARGV: the job, the owner, 1 where that was all.
local key = P .. 'job:' .. ARGV[2]
if call('HGET', key, 'owner') == ARGV[3] then
  call('HSET', key, 'owner', '', 'until', '0')
  touch(ARGV[2])
  if ARGV[4] == '1' then
    call('HSET', key, 'whole', '1')
  end
end
disown(ARGV[3], 'j' .. ARGV[2])
return '[]'
