-- Drop some of what an account graded, and at the end begin another edition.
-- ARGV: the account, where to begin. Answers with where to go on; empty at the end.
local BATCH = 500
local found = call('XRANGE', OUTCOMES, ARGV[3], '+', 'COUNT', BATCH)
for _, entry in ipairs(found) do
  if entry[2][2] == ARGV[2] then
    call('XDEL', OUTCOMES, entry[1])
  end
end
if #found < BATCH then
  begin_edition()
  return '[""]'
end
return cjson.encode({string.format('%.0f', tonumber(string.match(found[BATCH][1], '^%d+')) + 1) .. '-0'})
