-- A slice: part of some accounts that one process holds, to admit calls against without asking. This tells what it came
-- to, and sets its size anew. ARGV: id, version of the limits, and as JSON:
--   number     of this report: one that is told twice counts once
--   fresh      the slice is to be made;  final: it is to end
--   from, to   the moments at which the spans of `lines` are the right ones
--   lines      as for `reserve`; of `rooms` there is one, the limit
--   spent, guess, busy    what calls have come to since the last report, what of it is an estimate, and the worst case of
--                         those in flight
--   keep       how much more it holds in any case: what calls may take while this report is under way. It is held already
--   rows       {what is kept of them, cost, guess, attempts}: the same by hour, origin and tier
--   left       {id, record}: calls that nobody renews any more; what they hold is in none of the above
--   want, share, least    how much more it is to hold than what is in flight: at most so large a part of the way to the
--                         next edge of any account, and nothing where that is less than `least`
--   hold       what is kept of it
-- An edge is a limit, or a threshold: below one, no slice can be the reason that a call is on the other side.
-- Answers with: how much it holds more; for each line what was used without what slices hold idle; whether it is to
-- be given back; what is spent in each slot, as for `settle`; and how much of `keep` it may keep.
local id, version, ask = ARGV[5], ARGV[6], cjson.decode(ARGV[7])
if not lapse() then
  return answer('more')
end
local key = KEY .. 'h:' .. id
local kept = call('GET', key)
if kept == 'ended' then
  return answer('ended')
elseif not kept and not ask.fresh then
  return answer('unknown')
end
local hold = kept and cjson.decode(kept)
if hold and hold.lapsed and not ask.final then
  return answer('lapsed', hold.told and hold.told[1] or 0)
end
if (meta[3] or '0') ~= version then
  return answer('limits', meta[3] or '0', call('HGETALL', LIMITS))
end
if hold and hold.told and hold.told[1] == ask.number then
  return answer('done', unpack(hold.told[2]))
end

local lines, slots, live, fields = ask.lines, hold and hold.slots or {}, {}, {}
for place, line in ipairs(lines) do
  local mine = account(line[1])
  local found = call('HMGET', mine, 'g', 'n', '@' .. line[8])
  if found[1] and number(found[2]) <= now then
    prune(line[1])
    found = call('HMGET', mine, 'g', 'n', '@' .. line[8])
  end
  fields[place] = found
end
for place, slot in ipairs(slots) do
  live[place] = there(slot)
  if live[place] and le(MOST_CHARGED, live[place]) then
    return answer('full', slot[1])
  end
end

-- What it held, and what that comes to.
if hold then
  for place, slot in ipairs(slots) do
    if live[place] then
      if hold.lapsed then
        add(slot, 'S', minus(hold.cost))
        add(slot, 'E', minus(hold.cost))
      else
        add(slot, 'I', minus(hold.idle or '0'))
      end
      add(slot, 'U', minus(hold.cost))
      add(slot, 'U', ask.spent)
      add(slot, 'U', ask.busy)
      add(slot, 'S', ask.spent)
      add(slot, 'E', ask.guess)
    end
  end
  if hold.lapsed then
    call('ZREM', LAPSED, id)
    book(hold, minus(hold.cost), minus(hold.cost), 0)
  end
end
local without = hold and hold.without or {} -- names that were erased meanwhile
for _, row in ipairs(ask.rows) do
  if without[row[1].tenant] then
    row[1].row = row[1].nobody
  end
  book(row[1], row[2], row[3], row[4])
end
for _, each in ipairs(ask.left) do
  local left = each[2]
  if without[left.tenant] then
    left.row, left.tenant = left.nobody, false
  end
  left.slots, left.lapsed, left.used = {}, true, {}
  for place, slot in ipairs(slots) do
    left.used[place] = '0'
    if live[place] then
      left.slots[#left.slots + 1] = slot
      add(slot, 'U', left.cost)
      add(slot, 'S', left.cost)
      add(slot, 'E', left.cost)
    end
  end
  book(left, left.cost, left.cost, 1)
  call('SET', KEY .. 'h:' .. each[1], cjson.encode(left), 'EX', LATE)
  call('ZADD', LAPSED, text(moment), each[1])
end

-- How much it may hold now.
local idle, back = tonumber(ask.want), next(without) ~= nil or not (number(ask.from) <= now and now < number(ask.to))
for place, line in ipairs(lines) do
  local found = call('HMGET', account(line[1]), 'g', 'U', 'I', 'r')
  back = back or (hold and found[1] ~= (slots[place] or {})[2]) -- it was dropped, and this is another one
  if found[4] then
    if tonumber(found[4]) > moment then
      back = true
    elseif found[1] then
      call('HDEL', account(line[1]), 'r')
    end
  end
  local used, edge = tonumber(found[2] or '0'), math.huge
  local seen = used - tonumber(found[3] or '0')
  for which, limit in ipairs({line[5], line[6], line[7] == 1 and line[10][1] or ''}) do
    if limit ~= '' then
      limit = tonumber(limit)
      if used < limit then
        edge = math.min(edge, limit)
      elseif which == 3 or seen < limit then
        idle = 0 -- there is no room; or slices reach over a threshold, and then each call has to be asked for
      end
    end
  end
  if le(MOST_USED, found[2] or '0') then
    idle = 0
  elseif edge < math.huge then
    idle = math.min(idle, math.floor((edge - used) * ask.share))
  end
end
if back or ask.final or idle < tonumber(ask.least) or idle == 0 then
  idle, back = 0, true
end
local granted = string.format('%.0f', idle)
idle = ask.final and '0' or not le(ask.keep, granted) and ask.keep or granted

if not hold then
  if idle == '0' then
    return answer('none')
  end
  for place, line in ipairs(lines) do
    local found = fields[place]
    slots[place] = slot_of(line[1], line[2], line[3], line[4], line[8], line[9], found[1], found[3])
    live[place] = '0'
  end
  hold = ask.hold
  hold.at, hold.offer = text(now), 1
end
local used, spent = {}, {}
for place, slot in ipairs(slots) do
  spent[place] = {}
  if live[place] then
    add(slot, 'U', idle)
    add(slot, 'I', idle)
    spent[place] = {slot[1], slot[3], charged(slot)}
  end
end
for place, line in ipairs(lines) do
  local found = call('HMGET', account(line[1]), 'U', 'I')
  used[place] = less(found[1] or '0', found[2] or '0')
end
if ask.final then
  call('ZREM', LEASES, id)
  forbid(id)
  return answer('done', '0', used, back, spent, '0')
end
local who = ask.hold
if without[who.tenant] then
  who.row, who.tenant = who.nobody, false
end
hold.row, hold.nobody, hold.tenant, hold.route, hold.tier, hold.model = who.row, who.nobody, who.tenant, who.route,
  who.tier, who.model
hold.slots, hold.lines, hold.used, hold.idle, hold.cost = slots, {}, {}, idle, sum(ask.busy, idle)
for place, slot in ipairs(slots) do
  hold.lines[place], hold.used[place] = slot[1], '0'
end
hold.told = {ask.number, {idle, used, back, spent, granted}}
call('SET', key, cjson.encode(hold))
call('ZADD', LEASES, text(moment + LEASE), id)
return answer('done', idle, used, back, spent, granted)
