-- Holds that were made, by id. ARGV: the id before, how many at most.
local found = {}
local from = ARGV[2] == '' and '-' or '(' .. ARGV[2]
for _, id in ipairs(call('ZRANGEBYLEX', P .. 'holds', from, '+', 'LIMIT', 0, ARGV[3])) do
  local batch = call('HGET', P .. 'of', id)
  local entry = batch and call('HGET', P .. 'held:' .. batch, id)
  if entry then
    found[#found + 1] = {id, entry}
  end
end
return cjson.encode(found)
