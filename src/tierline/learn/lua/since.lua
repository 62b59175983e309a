-- What was added after a number of an edition. Answers with the edition, the last number, and the evidence.
-- ARGV: the edition and the number that the reader has, how many at most.
local number, last = tonumber(ARGV[3]), tonumber(call('HGET', ABOUT, 'number') or '0')
if ARGV[2] == edition and number > last then
  begin_edition() -- an older state of the store has come back
end
if ARGV[2] ~= edition then
  number = 0
end
local rows = {}
for _, entry in ipairs(call('XRANGE', OUTCOMES, string.format('%.0f', number + 1) .. '-0', '+', 'COUNT', ARGV[4])) do
  number = tonumber(string.match(entry[1], '^%d+'))
  rows[#rows + 1] = entry[2][4]
end
return cjson.encode({edition, string.format('%.0f', number), rows})
