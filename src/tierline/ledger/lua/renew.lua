-- Begin leases anew. ARGV: ids.
if not lapse() then
  return answer('more')
end
local deadline = text(moment + LEASE)
for place = 5, #ARGV do
  call('ZADD', LEASES, 'XX', deadline, ARGV[place])
end
return answer('done')
