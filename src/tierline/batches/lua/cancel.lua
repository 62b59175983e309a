-- Nothing more of a job is to be sent. ARGV: its name.
call('HSET', P .. 'job:' .. ARGV[2], 'canceled', '1')
for _, batch in ipairs(call('SMEMBERS', P .. 'open:' .. ARGV[2])) do
  call('HSET', P .. 'batch:' .. batch, 'due', '0')
  if owner_of(P .. 'batch:' .. batch) == '' then
    call('ZADD', P .. 'due', 0, batch)
  end
end
return '[]'
