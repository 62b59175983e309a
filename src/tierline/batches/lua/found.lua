-- Those of some requests that have a result. ARGV: the job, places.
local job, found = ARGV[2], {}
for at = 3, #ARGV do
  local each = item(job, ARGV[at])
  if each and each[STATE] == FINAL then
    found[#found + 1] = {ARGV[at], each, call('HGET', P .. 'results:' .. job, ARGV[at])}
  end
end
return cjson.encode(found)
