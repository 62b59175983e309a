-- Requests of a tenant, among some. ARGV: the tenant, where to begin, how many to look at.
local found = {}
local range = call('ZRANGE', P .. 'all', ARGV[3], tonumber(ARGV[3]) + tonumber(ARGV[4]) - 1)
for _, handle in ipairs(range) do
  if call('HGET', key(handle), 'tenant') == ARGV[2] then
    found[#found + 1] = handle
  end
end
return cjson.encode({#range, found})
