-- What a job has come to. ARGV: its name. Pairs of a field of P:tally:<job> and its sum.
local found, flat = {}, call('HGETALL', P .. 'tally:' .. ARGV[2])
for at = 1, #flat, 2 do
  found[#found + 1] = {flat[at], flat[at + 1]}
end
return cjson.encode(found)
