-- Hold the first offer that fits all lines. ARGV: id, version of the limits, and as JSON:
--   from, to   the moments at which all `spans` are the right ones
--   late       the server's time after which nobody waits for the answer any more
--   thresholds, costs of the offers, hold (what is kept of it), tiers
--   wait       whether to ask slices back, and hold nothing, where they alone are in the way of an offer
--   lines: {name, rolls, line, first alert, downgrade_from, cheapest_from, hard, start, end, rooms},
--          rooms: for each offer the most that the account may have used before it ('': never)
local id, version, ask = ARGV[5], ARGV[6], cjson.decode(ARGV[7])
if wall > ask.late then
  return answer('late')
end
local lapsed = lapse()
local known = call('GET', KEY .. 'h:' .. id)
if known then
  if known == 'ended' or cjson.decode(known).lapsed then
    return answer('ended')
  end
  return answer(lapsed and 'again' or 'more', known)
end
if (meta[3] or '0') ~= version then
  return answer('limits', meta[3] or '0', call('HGETALL', LIMITS))
end
if not (number(ask.from) <= now and now < number(ask.to)) then
  return answer('clock')
end

-- What is used, and what of that is not held idle by slices: by that, thresholds go.
local lines, used, shown, fields, sliced = ask.lines, {}, {}, {}, false
for place, line in ipairs(lines) do
  local name = line[1]
  local key = account(name)
  local found = call('HMGET', key, 'g', 'n', 'U', 'l', '@' .. line[8], 'I')
  if found[1] and number(found[2]) <= now then
    prune(name)
    found = call('HMGET', key, 'g', 'n', 'U', 'l', '@' .. line[8], 'I')
  end
  if found[1] and found[4] ~= line[3] then
    call('HSET', key, 'l', line[3], 'a', line[4]) -- a plan may have changed since
  end
  used[place], fields[place] = found[3] or '0', found
  shown[place] = used[place]
  if found[6] and found[6] ~= '0' then
    shown[place], sliced = less(used[place], found[6]), true
  end
  if le(MOST_USED, used[place]) then
    return answer('full', name)
  end
end

local count = #ask.costs
local first = 1
if ask.thresholds and count > 1 then
  for place, line in ipairs(lines) do
    if line[6] ~= '' and le(line[6], shown[place]) then
      first = count
    elseif first == 1 and line[5] ~= '' and le(line[5], shown[place]) then
      first = 2
    end
  end
end

local function fitting(amounts)
  for offer = first, count do
    local fits = true
    for place, line in ipairs(lines) do
      if line[7] == 1 then
        local room = line[10][offer]
        if room == '' or not le(amounts[place], room) then
          fits = false
          break
        end
      end
    end
    if fits then
      return offer
    end
  end
end

local taken = fitting(used)
if sliced and ask.wait and taken ~= fitting(shown) then
  for place, line in ipairs(lines) do
    if shown[place] ~= used[place] then
      call('HSET', account(line[1]), 'r', text(moment + ASKED_BACK))
    end
  end
  return answer('sliced')
end

if not taken then
  -- For each line: what it has used, spent, and of each of its spans end, used, spent.
  local parts = {}
  for place, line in ipairs(lines) do
    local part, mine = {}, all(account(line[1]))
    for field, value in pairs(mine) do
      if string.sub(field, 1, 1) == '@' then
        local start = string.sub(field, 2)
        part[#part + 1] = value
        part[#part + 1] = line[2] == 0 and mine.U or mine['u' .. start] or '0'
        part[#part + 1] = line[2] == 0 and mine.S or mine['s' .. start] or '0'
      end
    end
    parts[place] = part
  end
  return answer('refused', used, parts)
end

local cost, hold, slots, seen, names = ask.costs[taken], ask.hold, {}, {}, {}
for place, line in ipairs(lines) do
  local name = line[1]
  names[place] = name
  if not seen[name] then
    seen[name] = true
    local slot = slot_of(name, line[2], line[3], line[4], line[8], line[9], fields[place][1], fields[place][5])
    add(slot, 'U', cost)
    slots[#slots + 1] = slot
  end
end
hold.lines, hold.cost, hold.slots, hold.at, hold.used, hold.offer = names, cost, slots, text(now), shown, taken
hold.tier, hold.model = ask.tiers[taken][1], ask.tiers[taken][2]
local tier = cjson.encode(hold.tier) .. ']'
hold.row, hold.nobody = hold.row .. tier, hold.nobody .. tier
call('SET', KEY .. 'h:' .. id, cjson.encode(hold))
call('ZADD', LEASES, text(moment + LEASE), id)
return answer('held', taken, shown)
