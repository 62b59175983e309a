-- Data were lost. ARGV: this member, '1' to go on whatever is missing, and as JSON what the member knows of them:
--   seen      the last time that it saw
--   met       when it last asked who was there
--   members   who was there
--   totals    {line as for `reserve`, what was spent in its span}
--   holds     {id, record, lines as for `reserve`}
--   limits    {budget and account, limit}
--   whole     whether that was all that it knows
-- Told is: 'open', or 'suspect' and how many members are still missing.
local member, force, ask = ARGV[5], ARGV[6] == '1', cjson.decode(ARGV[7])
local EXPECTED, HEARD, TOTALS, GIVEN = KEY .. 'expected', KEY .. 'heard', KEY .. 'totals', KEY .. 'given'
local GRACE, LONG_GRACE, LATELY = 1, 5, 20
if not meta[1] or not (meta[2] or force) then
  return answer('changed')
end
if ask.seen > now then
  now, now_text = ask.seen, text(ask.seen)
  call('HSET', META, 'now', now_text)
end

local function slot_for(line)
  local found = call('HMGET', account(line[1]), 'g', 'n', '@' .. line[8])
  if found[1] and number(found[2]) <= now then
    prune(line[1])
    found = call('HMGET', account(line[1]), 'g', 'n', '@' .. line[8])
  end
  return slot_of(line[1], line[2], line[3], line[4], line[8], line[9], found[1], found[3])
end

for _, each in ipairs(ask.totals) do
  local line, spent = each[1], each[2]
  local field = line[8] .. line[1]
  local other = call('HGET', TOTALS, field)
  if not other or not le(spent, cjson.decode(other)[2]) then
    call('HSET', TOTALS, field, cjson.encode(each))
  end
end
for _, each in ipairs(ask.holds) do
  local id, hold = each[1], each[2]
  if call('EXISTS', KEY .. 'h:' .. id) == 0 then
    hold.slots = {}
    for _, line in ipairs(each[3]) do
      if number(line[9]) > now then
        local slot = slot_for(line)
        add(slot, 'U', hold.cost)
        hold.slots[#hold.slots + 1] = slot
      end
    end
    call('SET', KEY .. 'h:' .. id, cjson.encode(hold))
    call('ZADD', LEASES, text(moment + LEASE), id)
  end
end
for _, each in ipairs(ask.limits) do
  if call('HSETNX', LIMITS, each[1], each[2]) == 1 then
    call('HINCRBY', META, 'version', 1)
  end
end
for _, other in ipairs(ask.members) do
  call('SADD', EXPECTED, other)
end
local met = tonumber(call('HGET', META, 'met') or 0)
if ask.whole then
  call('SADD', HEARD, member)
  if ask.met > met then
    met = ask.met
    call('HSET', META, 'met', text(met))
  end
end

local missing = #call('SDIFF', EXPECTED, HEARD)
local heard = call('SCARD', HEARD)
if not force then
  local since = wall - tonumber(meta[2])
  -- Who has not looked lately does not know who came since: let those come.
  local grace = now - met - since > LATELY and LONG_GRACE or GRACE
  if heard == 0 or missing > 0 or since < grace then
    return answer('suspect', meta[1], missing)
  end
end
for field, value in pairs(all(TOTALS)) do
  local each = cjson.decode(value)
  local line, spent = each[1], each[2]
  if number(line[9]) > now then
    local slot = slot_for(line)
    -- Somebody may come later who knew more: what was given back before is in these sums.
    local before = call('HGET', GIVEN, field)
    before = before and cjson.decode(before)
    before = before and before[1] == slot[2] and before[2] or '0'
    if not le(spent, before) then
      for _, total in ipairs({'U', 'S'}) do
        add(slot, total, minus(before))
        add(slot, total, spent)
      end
      call('HSET', GIVEN, field, cjson.encode({slot[2], spent}))
      charged(slot)
    end
  end
end
alerts = {} -- these were told before the loss
call('DEL', EXPECTED, TOTALS)
if force then
  call('DEL', HEARD, GIVEN) -- whoever comes later is not asked any more
else
  call('EXPIRE', GIVEN, POSTED)
end
call('HDEL', META, 'suspect', 'met')
-- Who has seen more than all who were heard is to give that back first: see `join`.
call('HSET', META, 'confirmed', text(force and now or math.max(met, tonumber(call('HGET', META, 'confirmed')))))
return answer('open')
