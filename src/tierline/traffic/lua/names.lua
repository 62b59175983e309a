-- Names of a kind with their cost, about, a part at a time: while a script runs the server does nothing else.
-- ARGV: the kind; pieces, as JSON; at which of them to begin, and at which of its names; how many names at most.
-- Answers with: {name, cost …} of each piece; where to go on, which is behind the last piece where nothing is left.
local pieces, left = cjson.decode(ARGV[2]), tonumber(ARGV[5])
local place, from, found = tonumber(ARGV[3]), tonumber(ARGV[4]), {}
while place <= #pieces and left > 0 do
  local key = piece_of(ARGV[1], pieces[place][1], pieces[place][2]) .. ':cost'
  local some = call('ZREVRANGE', key, from, from + left - 1, 'WITHSCORES')
  if #some > 0 then
    found[#found + 1] = some
  end
  if #some < 2 * left then
    place, from = place + 1, 0
  else
    from = from + left
  end
  left = left - #some / 2
end
return cjson.encode({found, place, from})
