-- Become the owner of answers that are to be delivered now. ARGV: the owner, how many at most, targets.
local limit, taken = tonumber(ARGV[3]), {}
for at = 4, #ARGV do
  local due = call('ZRANGEBYSCORE', P .. 'out:' .. ARGV[at], '-inf', now, 'LIMIT', 0, limit - #taken)
  for _, handle in ipairs(due) do
    taken[#taken + 1] = handle
  end
end
local found = {}
for _, handle in ipairs(taken) do
  found[#found + 1] = row(handle)
  change(of(handle), {owner = ARGV[2], ['until'] = until_})
end
return cjson.encode(found)
