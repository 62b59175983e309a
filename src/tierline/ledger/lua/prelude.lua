-- Put before each script of this folder.
--
-- KEYS[1]  {namespace}:meta; every other key begins alike, and so is in the same slot of a cluster
-- ARGV     the epoch that the client knows ('*': any), its clock ('': the server's), lease, retention; then the script's
--
-- Money is decimal text that is added up by HINCRBY: a number of Lua is exact up to 2^53 only. Times are seconds since
-- the epoch, as text with 17 digits.
--
-- {namespace}:a:<name>    an account. g: its generation, l: its line, a: its first alert, n: when the next of its spans
--                         ends; U, S, E: used (spent and held), spent, estimated, of all spans that have not ended;
--                         I: what of U slices hold that no call has yet; r: until when slices are asked back;
--                         for each span @<start>: its end, t<start>: which alerts were told, and where several spans
--                         count at a time u, s, e, i<start>
-- {namespace}:accounts    names of accounts, by when their last span ends
-- {namespace}:h:<id>      a hold, a slice (a hold with `idle`: see `slice`), one of them that has lapsed, or 'ended'
-- {namespace}:leases      ids of holds, by when they lapse; {namespace}:lapsed: ids of those that did, by when
-- {namespace}:hour:<hour> spend of an hour: a, c, o, e<tenant, route, tier>; {namespace}:hours: which there are
-- {namespace}:limits      limits that were set, by budget and account
-- {namespace}:members     processes, by when they were last heard of
-- {namespace}:expected, heard, totals, given: what is being given back after a loss, see `restore`

local call = redis.call
local KEY = string.sub(KEYS[1], 1, -5)
local META, ACCOUNTS, LEASES, LIMITS = KEYS[1], KEY .. 'accounts', KEY .. 'leases', KEY .. 'limits'
local HOURS, MEMBERS, LAPSED = KEY .. 'hours', KEY .. 'members', KEY .. 'lapsed'
local LEASE, RETENTION = tonumber(ARGV[3]), tonumber(ARGV[4])
local TOMBSTONE, POSTED, LATE, BATCH, ASKED_BACK = 1800, 7 * 86400, 86400, 100, 2

local meta = call('HMGET', META, 'epoch', 'suspect', 'version', 'read', 'now', 'behind')
if ARGV[1] ~= '*' and (meta[1] ~= ARGV[1] or meta[2]) then
  return '["lost","0",false,false]'
end

local function text(seconds)
  if seconds == math.huge then
    return 'inf'
  end
  return string.format('%.17g', seconds)
end

local function number(seconds)
  if seconds == 'inf' then
    return math.huge
  end
  return tonumber(seconds)
end

-- Time never goes back: what the clock lost is made up for in `moment`, by which leases run.
local time = call('TIME')
local wall = tonumber(time[1]) + tonumber(time[2]) / 1e6
local read = ARGV[2] == '' and wall or tonumber(ARGV[2])
local now, behind = tonumber(meta[5] or read), tonumber(meta[6] or 0)
local before = tonumber(meta[4] or read)
if read < before then
  behind = behind + before - read
elseif read > now then
  now = read
end
local moment = read + behind
local now_text = text(now)
call('HSET', META, 'read', read == now and now_text or text(read), 'now', now_text, 'behind', text(behind))

local alerts = {}

-- What every script answers: one text, for clients read that ten times faster than a list.
local function answer(status, ...)
  return cjson.encode({status, now_text, wall ~= now and text(wall), #alerts > 0 and {meta[3] or '0', alerts} or false, ...})
end

local function le(one, other)
  return #one < #other or (#one == #other and one <= other)
end

-- Sums have 64 bits, and a cost is at most 10^18. What may be held leaves room for what calls come to above that.
local MOST_USED, MOST_CHARGED = '7000000000000000000', '8200000000000000000'

local function minus(amount)
  return amount == '0' and '0' or '-' .. amount
end

-- The sum and the difference of two amounts, neither of them below 0: in two parts, for each is exact in a number of Lua.
local LOW = 1e15
local function parts(one)
  return tonumber(string.sub(one, 1, -16)) or 0, tonumber(string.sub(one, -15))
end

local function joined(high, low)
  return high == 0 and string.format('%.0f', low) or string.format('%.0f%015.0f', high, low)
end

local function sum(one, other)
  local high, low = parts(one)
  local more_high, more_low = parts(other)
  high, low = high + more_high, low + more_low
  return low >= LOW and joined(high + 1, low - LOW) or joined(high, low)
end

local function less(one, other)
  local high, low = parts(one)
  local less_high, less_low = parts(other)
  high, low = high - less_high, low - less_low
  return low < 0 and joined(high - 1, low + LOW) or joined(high, low)
end

local function all(key)
  local flat, found = call('HGETALL', key), {}
  for place = 1, #flat, 2 do
    found[flat[place]] = flat[place + 1]
  end
  return found
end

local function account(name)
  return KEY .. 'a:' .. name
end

-- Drop the spans of an account that have ended. False where that was all.
local function prune(name)
  local key = account(name)
  local fields, soonest, gone = all(key), nil, {}
  for field, value in pairs(fields) do
    if string.sub(field, 1, 1) == '@' then
      local finish = number(value)
      if finish <= now then
        gone[#gone + 1] = string.sub(field, 2)
      elseif not soonest or finish < soonest then
        soonest = finish
      end
    end
  end
  if not soonest then
    call('DEL', key)
    call('ZREM', ACCOUNTS, name)
    return false
  end
  for _, start in ipairs(gone) do
    for _, total in ipairs({'U', 'S', 'E', 'I'}) do
      local part = fields[string.lower(total) .. start]
      if part and part ~= '0' then
        call('HINCRBY', key, total, minus(part))
      end
    end
    call('HDEL', key, '@' .. start, 't' .. start, 'u' .. start, 's' .. start, 'e' .. start, 'i' .. start)
  end
  call('HSET', key, 'n', text(soonest))
  return true
end

-- A slot is {name, generation, start, whether it rolls}: where a hold is charged. Nil where that is gone.
local function there(slot)
  local found = call('HMGET', account(slot[1]), 'g', '@' .. slot[3], 'U')
  if found[1] == slot[2] and found[2] then
    return found[3]
  end
end

local function add(slot, field, amount)
  if amount == '0' then
    return
  end
  local key = account(slot[1])
  call('HINCRBY', key, field, amount)
  if slot[4] == 1 then
    call('HINCRBY', key, string.lower(field) .. slot[3], amount)
  end
end

-- The slot of a span, made if there is none. `known`, if given: the account's generation, and the span's end.
local function slot_of(name, rolls, line, alert, start, finish, generation, known)
  local key = account(name)
  if not generation then
    for _, other in ipairs(call('ZRANGEBYSCORE', ACCOUNTS, '-inf', text(now), 'LIMIT', 0, 8)) do
      prune(other) -- more than one goes as one comes
    end
    generation = tostring(call('HINCRBY', META, 'generation', 1))
    call('HSET', key, 'g', generation, 'l', line, 'a', alert, 'n', finish, 'U', '0', 'S', '0', 'E', '0',
      '@' .. start, finish)
  elseif not known then
    local soonest = call('HGET', key, 'n')
    call('HSET', key, '@' .. start, finish, 'n', number(finish) < number(soonest) and finish or soonest)
  else
    return {name, generation, start, rolls}
  end
  local last = call('ZSCORE', ACCOUNTS, name)
  if not last or number(last) < number(finish) then
    call('ZADD', ACCOUNTS, finish, name)
    if finish ~= 'inf' then
      call('EXPIRE', key, math.ceil(number(finish) - read) + TOMBSTONE) -- the server forgets by its own clock
    end
  end
  return {name, generation, start, rolls}
end

-- Note what is to be told of an account: the alerts that its spending has reached, or that a call was refused.
local function tell(name, refused)
  local key = account(name)
  local fields = all(key)
  if not fields.n or number(fields.n) <= now then
    if not fields.n or not prune(name) then
      return
    end
    fields = all(key)
  end
  local line = cjson.decode(fields.l)
  local newest, newest_end, renews, told = nil, nil, math.huge, {}
  for field, value in pairs(fields) do
    if string.sub(field, 1, 1) == '@' then
      local start, finish = string.sub(field, 2), number(value)
      for place in string.gmatch(fields['t' .. start] or '', '%d+') do
        told[tonumber(place)] = true
      end
      if not newest or tonumber(start) > tonumber(newest) then
        newest, newest_end = start, finish
      end
      if (fields['u' .. start] or fields.U) ~= '0' and finish < renews then
        renews = finish
      end
    end
  end
  if fields.U == '0' then
    if refused then
      return -- an account that has nothing has no alerts
    end
    renews = newest_end
  end
  local all_told, new = true, ''
  for place, amount in ipairs(line.alerts) do
    local reached = le(amount, fields.S)
    if refused then
      reached = place == #line.alerts and line.whole
    end
    if reached and not told[place] then
      new = new .. place .. ' '
      alerts[#alerts + 1] = {line.budget, line.account, line.shares[place], fields.S, line.limit, text(renews),
        refused and 1 or 0}
    end
    all_told = all_told and (reached or told[place])
  end
  if new ~= '' then
    call('HSET', key, 't' .. newest, (fields['t' .. newest] or '') .. new)
  end
  if all_told and not line.rolls then
    call('HSET', key, 'a', '') -- nothing is left to look for until the window ends
  end
end

-- After something was charged to a slot. Gives what is spent in its span.
local function charged(slot)
  local found = call('HMGET', account(slot[1]), 'S', 'a', 's' .. slot[3])
  if found[2] ~= '' and le(found[2], found[1]) then
    tell(slot[1])
  end
  return slot[4] == 1 and (found[3] or '0') or found[1]
end

-- Spend by hour: `cost` and `guess` are added, or taken back.
local function book(hold, cost, guess, attempts)
  local hour = math.floor(tonumber(hold.at) / 3600) * 3600
  if not hold.row or hour <= now - RETENTION then
    return
  end
  local name = string.format('%.0f', hour)
  local key = KEY .. 'hour:' .. name
  local add_up = redis.pcall -- what does not fit in 64 bits is missing here, and nothing else fails
  add_up('HINCRBY', key, 'c' .. hold.row, cost)
  if hold.own then
    add_up('HINCRBY', key, 'o' .. hold.row, cost)
  elseif attempts ~= 0 then
    add_up('HINCRBY', key, 'a' .. hold.row, attempts)
  end
  if guess ~= '0' then
    add_up('HINCRBY', key, 'e' .. hold.row, guess)
  end
  if call('TTL', key) < 0 then
    call('EXPIRE', key, math.ceil(hour + RETENTION - read) + TOMBSTONE)
    call('ZADD', HOURS, name, name)
  end
end

local function forbid(id, seconds)
  call('SET', KEY .. 'h:' .. id, 'ended', 'EX', seconds or TOMBSTONE)
end

-- Charge holds whole whose lease is over. A bounded number at a time: says whether that was all.
local function lapse()
  local due = call('ZRANGEBYSCORE', LEASES, '-inf', text(moment), 'LIMIT', 0, BATCH)
  for _, id in ipairs(due) do
    call('ZREM', LEASES, id)
    local kept = call('GET', KEY .. 'h:' .. id)
    if kept and kept ~= 'ended' then
      local hold = cjson.decode(kept)
      hold.lapsed = true
      call('ZADD', LAPSED, text(moment), id)
      call('SET', KEY .. 'h:' .. id, cjson.encode(hold), 'EX', LATE)
      for _, slot in ipairs(hold.slots) do
        if there(slot) then
          add(slot, 'S', hold.cost)
          add(slot, 'E', hold.cost)
          add(slot, 'I', minus(hold.idle or '0'))
        end
      end
      book(hold, hold.cost, hold.cost, hold.idle and 0 or 1) -- how many calls a slice was for, nobody can tell
      for _, slot in ipairs(hold.slots) do
        if there(slot) then
          charged(slot)
        end
      end
    end
  end
  if #due > 0 then
    call('ZREMRANGEBYSCORE', LAPSED, '-inf', text(moment - LATE))
  end
  return #due < BATCH
end
