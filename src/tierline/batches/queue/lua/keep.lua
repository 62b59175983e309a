-- Begin leases anew. ARGV: the owner, JSON of groups, handles.
for _, group in ipairs(cjson.decode(ARGV[3])) do
  if owns(group, ARGV[2]) then
    call('ZADD', P .. 'groups', until_, group)
  end
end
for at = 4, #ARGV do
  local each = of(ARGV[at])
  if each and each.owner == ARGV[2] then
    change(each, {['until'] = until_})
  end
end
return '[]'
