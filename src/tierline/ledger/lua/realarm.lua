-- Other amounts to tell of, for the limit has changed. ARGV: account, its line as it was, as it is, its first alert.
local key = account(ARGV[5])
if call('HGET', key, 'l') == ARGV[6] then
  call('HSET', key, 'l', ARGV[7], 'a', ARGV[8])
end
return answer('done')
