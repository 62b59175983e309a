-- Balances, as operators see them. The scan may give one twice.
-- ARGV: the cursor of a scan; the name of an account, as JSON ('': all); how many of a page are told ('': all), the
-- fullest, and above which share of the limit.
-- Answers with: where to go on; {generation, {budget, account, series}, used, spent, estimated, limit, hard, end} of
-- each; the budgets of the page; how many accounts there are in all.
--
-- Names are JSON, which is told as it is: taking it apart would take longer than all else. A quote inside of a text has
-- a backslash before it, so `,"` stands between texts alone, and `"limit":"` in front of a limit alone.
if not lapse() then
  return answer('more')
end
local who, most, least = ARGV[6] ~= '' and ',' .. ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local set = all(LIMITS)
local some_set = next(set) ~= nil
local found = call('ZSCAN', ACCOUNTS, ARGV[5], 'COUNT', 500)
local picked, budgets, known = {}, {}, {}
local TOLD = {'n', 'U', 'l', 'I', 'g', 'S', 'E'}
local looked = most and {'n', 'U', 'l', 'I'} or TOLD -- where few are told, the rest is read of those alone

-- Leave the fullest. What is no fuller than the last of them need not be looked at any more.
local function cut()
  table.sort(picked, function(one, other)
    return one[1] > other[1]
  end)
  for place = #picked, most + 1, -1 do
    picked[place] = nil
  end
  if most > 0 and #picked == most then
    least = picked[most][1]
  end
end

-- When what counts of an account stops counting; of a window that rolls, the first of it.
local function end_of(name, next_end, rolls)
  if rolls == 'false' then
    return next_end
  end
  local fields, newest, soonest = all(account(name)), nil, nil
  for field, finish in pairs(fields) do
    if string.sub(field, 1, 1) == '@' then
      local start = string.sub(field, 2)
      if not newest or tonumber(start) > tonumber(newest) then
        newest = start
      end
      if (fields['u' .. start] or '0') ~= '0' and (not soonest or number(finish) < number(soonest)) then
        soonest = finish
      end
    end
  end
  return soonest or fields['@' .. newest]
end

for place = 1, #found[2], 2 do
  local name = found[2][place]
  local whose = (who or some_set) and string.match(name, '^(.+),"[^"]*"%]$') -- without the series, and not closed
  if not who or string.sub(whose, -#who) == who then
    local key = account(name)
    local mine = call('HMGET', key, unpack(looked))
    if mine[1] and number(mine[1]) <= now then
      mine = prune(name) and call('HMGET', key, unpack(looked)) or {true}
    end
    if not mine[1] then
      call('ZREM', ACCOUNTS, name)
    elseif mine[2] then
      local limit, hard, rolls = string.match(mine[3], '"limit":"(%d+)","hard":(%a+),"rolls":(%a+)')
      local budget = string.sub(name, 1, string.find(name, ',"', 1, true) - 1)
      if some_set then
        limit = set[whose .. ']'] or set[budget .. ',null]'] or limit
      end
      if not known[budget] then
        known[budget] = true
        budgets[#budgets + 1] = string.sub(budget, 2)
      end
      mine[2] = less(mine[2], mine[4] or '0') -- what slices hold idle, no call has
      local share = tonumber(mine[2]) / tonumber(limit)
      if share > least then
        picked[#picked + 1] = {share, name, mine, limit, hard, rolls}
        if most and #picked > 2 * most then
          cut()
        end
      end
    end
  end
end

if most then
  cut()
end
local rows = {}
for place, each in ipairs(picked) do
  local _, name, mine, limit, hard, rolls = unpack(each)
  if most then
    local told = call('HMGET', account(name), unpack(TOLD))
    told[2], mine = mine[2], told
  end
  local finish = end_of(name, mine[1], rolls)
  rows[place] = '[' .. table.concat({
    mine[5], name, mine[2], mine[6], mine[7], limit, hard, finish == 'inf' and 'null' or finish}, ',') .. ']'
end
local head = answer('done', found[1])
local total = call('ZCOUNT', ACCOUNTS, '(' .. now_text, '+inf')
return string.sub(head, 1, -2) .. ',[' .. table.concat(rows, ',') .. '],[' .. table.concat(budgets, ',') .. '],'
  .. total .. ']'
