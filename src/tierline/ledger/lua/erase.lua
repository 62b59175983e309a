-- Drop what is kept under the name of an account or a tenant, step by step.
-- ARGV: the name, which step (accounts, holds, lapsed, hours, limits), the cursor of its scan.
if not lapse() then
  return answer('more')
end
local who, step, cursor = ARGV[5], ARGV[6], ARGV[7]

local function strip(id)
  local key = KEY .. 'h:' .. id
  local kept = call('GET', key)
  if not kept or kept == 'ended' then
    return
  end
  local hold = cjson.decode(kept)
  local slots = {}
  for _, slot in ipairs(hold.slots) do
    if cjson.decode(slot[1])[2] ~= who then
      slots[#slots + 1] = slot
    end
  end
  hold.slots = slots
  local names, used = {}, {}
  for place, name in ipairs(hold.lines) do
    if cjson.decode(name)[2] ~= who then
      names[#names + 1], used[#used + 1] = name, hold.used[place]
    end
  end
  hold.lines, hold.used = names, used
  if hold.idle then
    hold.without = hold.without or {} -- its process may yet report what it did for this name
    hold.without[who] = true
  end
  if hold.tenant == who then
    hold.tenant, hold.row = false, not hold.lapsed and hold.nobody -- its estimate is gone with the rows
  end
  call('SET', key, cjson.encode(hold), 'KEEPTTL')
end

if step == 'accounts' then
  local found = call('ZSCAN', ACCOUNTS, cursor, 'COUNT', 500)
  for place = 1, #found[2], 2 do
    local name = found[2][place]
    if cjson.decode(name)[2] == who then
      call('DEL', account(name))
      call('ZREM', ACCOUNTS, name)
    end
  end
  return answer('done', found[1])
elseif step == 'holds' or step == 'lapsed' then
  local found = call('ZSCAN', step == 'holds' and LEASES or LAPSED, cursor, 'COUNT', 500)
  for place = 1, #found[2], 2 do
    strip(found[2][place])
  end
  return answer('done', found[1])
elseif step == 'hours' then
  local hours = call('ZRANGEBYSCORE', HOURS, cursor == '0' and '-inf' or cursor, '+inf', 'LIMIT', 0, BATCH)
  for _, hour in ipairs(hours) do
    local key = KEY .. 'hour:' .. hour
    for _, field in ipairs(call('HKEYS', key)) do
      local good, row = pcall(cjson.decode, string.sub(field, 2))
      if good and row[1] == who then
        call('HDEL', key, field)
      end
    end
  end
  return answer('done', #hours == BATCH and '(' .. hours[#hours] or '0')
end
for _, field in ipairs(call('HKEYS', LIMITS)) do
  if cjson.decode(field)[2] == who then
    call('HDEL', LIMITS, field)
    call('HINCRBY', META, 'version', 1)
  end
end
return answer('done', '0')
