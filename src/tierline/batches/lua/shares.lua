-- The holds of a batch. ARGV: the batch.
local job, fields, waits = call('HGET', P .. 'batch:' .. ARGV[2], 'job'), {}, {}
local flat = call('HGETALL', P .. 'held:' .. ARGV[2])
for at = 1, #flat, 2 do
  fields[flat[at]] = flat[at + 1]
end
for _, place in ipairs(call('ZRANGE', P .. 'wait:' .. ARGV[2], 0, -1)) do
  local id = item(job, place)[HOLD]
  waits[id] = (waits[id] or 0) + 1
end
local found = {}
for id, entry in pairs(fields) do
  if call('HEXISTS', P .. 'of', id) == 1 then
    local cost, number = fields['c' .. id] or '0', tonumber(fields['n' .. id] or '0') + (waits[id] or 0)
    found[#found + 1] = {id, entry, cost, fields['e' .. id] == '1', waits[id] or 0, number}
  end
end
table.sort(found, function(one, other) return one[1] < other[1] end)
return cjson.encode(found)
