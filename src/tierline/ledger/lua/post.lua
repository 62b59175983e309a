-- Charge what was spent without a hold here. ARGV: id, cost, guess, version of the limits,
-- and as JSON: hold, attempts, and lines as for `reserve`.
local id, cost, guess, ask = ARGV[5], ARGV[6], ARGV[7], cjson.decode(ARGV[9])
lapse()
if call('EXISTS', KEY .. 'h:' .. id) == 1 then
  return answer('not')
end
if (meta[3] or '0') ~= ARGV[8] then
  return answer('limits', meta[3] or '0', call('HGETALL', LIMITS))
end
local slots, seen = {}, {}
for _, line in ipairs(ask.lines) do
  local name = line[1]
  if number(line[9]) > now and not seen[name] then
    seen[name] = true
    local found = call('HMGET', account(name), 'g', 'n', 'U', '@' .. line[8])
    if found[1] and number(found[2]) <= now then
      prune(name)
      found = call('HMGET', account(name), 'g', 'n', 'U', '@' .. line[8])
    end
    if le(MOST_CHARGED, found[3] or '0') then
      return answer('full', name)
    end
    slots[#slots + 1] = {line, found}
  end
end
forbid(id, POSTED) -- a journal may be read again after days
local spent = {}
for place, each in ipairs(slots) do
  local line, found = each[1], each[2]
  local slot = slot_of(line[1], line[2], line[3], line[4], line[8], line[9], found[1], found[4])
  add(slot, 'U', cost)
  add(slot, 'S', cost)
  add(slot, 'E', guess)
  spent[place] = {slot[1], slot[3], charged(slot)}
end
book(ask.hold, cost, guess, ask.attempts)
return answer('done', spent)
