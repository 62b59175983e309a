-- Which places are taken, and where names stand. ARGV: the job, the first and the last place, names.
local job = ARGV[2]
local places = call('ZRANGEBYSCORE', P .. 'places:' .. job, ARGV[3], ARGV[4])
local there = {}
for at = 5, #ARGV do
  local place = call('HGET', P .. 'names:' .. job, ARGV[at])
  if place then
    there[#there + 1] = {ARGV[at], place}
  end
end
return cjson.encode({places, there})
