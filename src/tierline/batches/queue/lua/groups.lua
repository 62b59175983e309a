-- Become the owner of groups that are due. ARGV: the owner, how many at most.
local found = {}
for _, group in ipairs(call('ZRANGEBYSCORE', P .. 'groups', '-inf', now, 'LIMIT', 0, ARGV[3])) do
  call('HSET', P .. 'group:' .. group, 'owner', ARGV[2])
  call('ZADD', P .. 'groups', until_, group)
  local about = call('HMGET', P .. 'group:' .. group, 'when_full', 'number', 'due', 'submitted', 'seen', 'canceled')
  local act_by = '9e99'
  for _, handle in ipairs(call('ZRANGE', P .. 'in:' .. group, 0, -1)) do
    local each = call('HGET', key(handle), 'act_by')
    if tonumber(each) < tonumber(act_by) then
      act_by = each
    end
  end
  found[#found + 1] = {group, about[1], about[2], about[3], about[4], about[5], about[6], act_by}
end
return cjson.encode(found)
