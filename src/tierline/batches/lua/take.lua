-- Become the owner of batches that are due. ARGV: the owner, how many at most.
local owner, limit = ARGV[2], tonumber(ARGV[3])
local names = {}
for _, what in ipairs(call('SMEMBERS', P .. 'owned:' .. owner)) do
  if string.sub(what, 1, 1) == 'b' then
    names[#names + 1] = string.sub(what, 2)
  end
end
for _, batch in ipairs(call('ZRANGEBYSCORE', P .. 'due', '-inf', now, 'LIMIT', 0, limit)) do
  names[#names + 1] = batch
end
local found, seen = {}, {}
for _, batch in ipairs(names) do
  local key = P .. 'batch:' .. batch
  if #found < limit and not seen[batch] then
    seen[batch] = true
    if call('HGET', key, 'state') == 'filling' then
      call('HSET', key, 'state', 'sealed')
    end
    local before = call('HGET', key, 'owner')
    if before and before ~= '' and before ~= owner then
      disown(before, 'b' .. batch)
    end
    call('HSET', key, 'owner', owner, 'until', due_by)
    call('ZADD', P .. 'due', due_by, batch)
    own(owner, 'b' .. batch)
    found[#found + 1] = row(batch)
  end
end
return cjson.encode(found)
