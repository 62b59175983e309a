-- Sums of some names of a kind. ARGV: the kind; names, and pieces, as JSON.
-- Answers with: {name, sums …} of each; sums over all.
local keys, names, total = {}, {}, {}
for _, piece in ipairs(cjson.decode(ARGV[3])) do
  local key = piece_of(ARGV[1], piece[1], piece[2])
  if call('EXISTS', key) == 1 then
    keys[#keys + 1] = key
    total[#total + 1] = call('HGET', key, '') or nil
  end
end
for _, name in ipairs(cjson.decode(ARGV[2])) do
  local row = {name}
  for _, key in ipairs(keys) do
    row[#row + 1] = call('HGET', key, name) or nil
  end
  names[#names + 1] = row
end
return cjson.encode({names, total})
