-- Take a request in. ARGV: its fields in order; those that are not there are left out by an empty text.
local handle = ARGV[2]
if call('EXISTS', key(handle)) == 0 then
  for at, field in ipairs(FIELDS) do
    call('HSET', key(handle), field, ARGV[at + 1])
  end
  call('HSET', key(handle), 'owner', '', 'until', '0')
  call('ZADD', P .. 'all', call('INCR', P .. 'number'), handle)
  list(of(handle))
end
return '[]'
