-- What is known of requests of a batch. ARGV: the batch, places.
local job = call('HGET', P .. 'batch:' .. ARGV[2], 'job')
local found = {}
for at = 3, #ARGV do
  local each = item(job, ARGV[at])
  if each and each[BATCH] == ARGV[2] and each[STATE] == SENT then
    found[#found + 1] = {ARGV[at], each[TRIES], each[WORST], each[MODEL], each[HOLD], each[SAID]}
  end
end
return cjson.encode(found)
