-- Replace a hold, or the estimate of its lapse, by a cost. ARGV: id, cost, the part that is a guess, attempts,
-- when the hold was made ('': not known).
local id, cost, guess, attempts = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])
local key = KEY .. 'h:' .. id
local kept = call('GET', key)
if not kept then
  if ARGV[9] ~= '' and tonumber(ARGV[9]) < tonumber(call('HGET', META, 'born')) then
    return answer('unknown') -- it was held before the data were lost
  end
  forbid(id)
  return answer('not')
end
if kept == 'ended' then
  return answer('not')
end
local hold = cjson.decode(kept)
if hold.idle then
  return answer('not') -- a slice: its process goes on admitting calls, and says itself what they came to
end
local live = {}
for place, slot in ipairs(hold.slots) do
  live[place] = there(slot)
  if live[place] and le(MOST_CHARGED, live[place]) then
    return answer('full', slot[1])
  end
end
for place, slot in ipairs(hold.slots) do
  if live[place] then
    add(slot, 'U', minus(hold.cost))
    add(slot, 'U', cost)
    add(slot, 'S', cost)
    add(slot, 'E', guess)
    if hold.lapsed then
      add(slot, 'S', minus(hold.cost))
      add(slot, 'E', minus(hold.cost))
    end
  end
end
if hold.lapsed then
  call('ZREM', LAPSED, id)
  book(hold, minus(hold.cost), minus(hold.cost), attempts - 1)
  book(hold, cost, guess, 0)
elseif attempts ~= 0 or cost ~= '0' then
  book(hold, cost, guess, attempts)
end
call('ZREM', LEASES, id)
forbid(id)
local spent = {}
for place, slot in ipairs(hold.slots) do
  spent[place] = live[place] and {slot[1], slot[3], charged(slot)} or {}
end
return answer('done', spent)
