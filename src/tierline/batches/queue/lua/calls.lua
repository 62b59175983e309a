-- Become the owner of requests that are to be called now. ARGV: the owner, how many at most.
local limit, taken = tonumber(ARGV[3]), {}
for _, set in ipairs({'act', 'late', 'calling'}) do
  for _, handle in ipairs(call('ZRANGEBYSCORE', P .. set, '-inf', now, 'LIMIT', 0, limit - #taken)) do
    taken[#taken + 1] = handle
  end
end
local found = {}
for _, handle in ipairs(taken) do
  found[#found + 1] = row(handle)
  change(of(handle), {state = 'calling', job = '', owner = ARGV[2], ['until'] = until_})
end
return cjson.encode(found)
