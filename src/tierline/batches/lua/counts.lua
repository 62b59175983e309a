-- How far a job is. ARGV: its name.
local key = P .. 'job:' .. ARGV[2]
local about = call('HMGET', key, 'whole', 'settings')
if not about[1] then
  return '[]'
end
local notes, open = {}, call('SMEMBERS', P .. 'open:' .. ARGV[2])
for _, batch in ipairs(open) do
  local note = call('HGET', P .. 'batch:' .. batch, 'note')
  if note and note ~= '' and #notes < 5 then
    notes[#notes + 1] = note
  end
end
local sums = call('HGETALL', P .. 'sums:' .. ARGV[2])
return cjson.encode({about[1] == '1', owner_of(key) ~= '', about[2], sums, #open > 0, notes})
