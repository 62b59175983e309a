-- Data were lost. ARGV: this member, '1' to go on whatever is missing, and as JSON what the member knows of them:
--   seen      the last time that it saw
--   members   who was there
--   totals    {line as for `reserve`, what was spent in its span}
--   holds     {id, record, lines as for `reserve`}
--   limits    {budget and account, limit}
--   whole     whether that was all that it knows
-- Told is: 'open', or 'suspect' and how many members are still missing.
local member, force, ask = ARGV[5], ARGV[6] == '1', cjson.decode(ARGV[7])
local EXPECTED, HEARD, TOTALS = KEY .. 'expected', KEY .. 'heard', KEY .. 'totals'
local GRACE = 1
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
if ask.whole then
  call('SADD', HEARD, member)
end

local missing = #call('SDIFF', EXPECTED, HEARD)
local heard = call('SCARD', HEARD)
if not force and (heard == 0 or missing > 0 or wall < tonumber(meta[2]) + GRACE) then
  return answer('suspect', meta[1], missing)
end
for _, value in pairs(all(TOTALS)) do
  local each = cjson.decode(value)
  local line, spent = each[1], each[2]
  if number(line[9]) > now then
    local slot = slot_for(line)
    add(slot, 'U', spent)
    add(slot, 'S', spent)
    charged(slot)
  end
end
alerts = {} -- these were told before the loss
call('DEL', EXPECTED, HEARD, TOTALS)
call('HDEL', META, 'suspect')
call('HSET', META, 'confirmed', text(now))
return answer('open')
