-- Write down how a group is. ARGV: the group, the owner, due, submitted, seen, canceled.
local group = ARGV[2]
if not owns(group, ARGV[3]) then
  return '[false]'
end
call('HSET', P .. 'group:' .. group, 'due', ARGV[4], 'submitted', ARGV[5], 'seen', ARGV[6], 'canceled', ARGV[7],
  'owner', '')
call('ZADD', P .. 'groups', ARGV[4], group)
return '[true]'
