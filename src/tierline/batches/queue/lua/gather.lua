-- Put requests that wait into a new group. ARGV: its id, how many at most.
local group, size = ARGV[2], tonumber(ARGV[3])
if call('EXISTS', P .. 'group:' .. group) == 1 then
  return '[true]' -- this very script has been run
end
for _, when_full in ipairs({'refuse', 'defer'}) do
  local fill = ripe(when_full)
  for _, handle in ipairs(call('ZRANGEBYSCORE', P .. 'act', '-inf', now)) do
    call('ZREM', fill, handle) -- it is to be called
  end
  local first = call('ZRANGE', fill, 0, 0, 'WITHSCORES')
  if first[1] and (tonumber(first[2]) <= now or call('ZCARD', fill) >= size) then
    local found = call('ZRANGE', fill, 0, size - 1)
    for place, handle in ipairs(found) do
      change(of(handle), {state = 'gathered', job = group, place = tostring(place - 1)})
    end
    call('HSET', P .. 'group:' .. group, 'when_full', when_full, 'number', tostring(#found), 'due', '0', 'submitted',
      '0', 'seen', '0', 'canceled', '0', 'owner', '')
    call('ZADD', P .. 'groups', 0, group)
    return '[true]'
  end
end
return '[false]'
