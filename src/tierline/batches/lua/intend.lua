-- Note ids of holds that are about to be made. ARGV: the owner, ids.
for at = 3, #ARGV do
  call('ZADD', P .. 'intents', due_by, ARGV[at])
  call('HSET', P .. 'intent', ARGV[at], ARGV[2])
  own(ARGV[2], 'i' .. ARGV[at])
end
return '[]'
