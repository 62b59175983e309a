-- The batches of a job that are not done. ARGV: its name.
local names, found = call('SMEMBERS', P .. 'open:' .. ARGV[2]), {}
table.sort(names)
for _, batch in ipairs(names) do
  found[#found + 1] = row(batch)
end
return cjson.encode(found)
