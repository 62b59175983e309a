-- Forget a request. ARGV: its handle.
local each = of(ARGV[2])
if not each then
  return '[false]'
end
unlist(each)
call('UNLINK', key(ARGV[2]))
call('ZREM', P .. 'all', ARGV[2])
return '[true]'
