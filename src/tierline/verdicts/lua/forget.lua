-- Drop some of the verdicts of an account.
-- ARGV: the account, where to begin. Answers with where to go on; empty at the end.
local BATCH = 500
local from = tonumber(ARGV[2])
local found = call('ZRANGE', ALL, from, from + BATCH - 1)
local dropped = 0
for _, key in ipairs(found) do
  if field(key, 'a') == ARGV[1] then
    call('DEL', of(key))
    call('ZREM', ALL, key)
    dropped = dropped + 1
  end
end
return cjson.encode({#found == BATCH and ms(from + BATCH - dropped) or ''})
