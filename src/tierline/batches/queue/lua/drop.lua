-- Forget a group. ARGV: the group, the owner.
local group = ARGV[2]
if owns(group, ARGV[3]) then
  for _, handle in ipairs(call('ZRANGE', P .. 'in:' .. group, 0, -1)) do
    change(of(handle), {state = 'waiting', job = ''})
  end
  call('DEL', P .. 'group:' .. group)
  call('ZREM', P .. 'groups', group)
end
return '[]'
