-- Put before each script of this folder. Each answers with JSON.
--
-- KEYS[1]  {namespace}:traffic; every other key begins alike, and so is in the same slot of a cluster
--
-- Sums are text: the fields of `Counts` with blanks between, without the zeros at the end. Money is added up as text,
-- for a number of Lua is exact up to 2^53 only.
--
-- {namespace}:traffic:tier:<hour>              sums by tier
-- {namespace}:traffic:<kind>:<level>:<start>   sums by name; '' is the sum over all names
-- ....:<kind>:<level>:<start>:cost             the same names by cost, about: only their order is of interest
-- {namespace}:traffic:workers                  by id: when it started, when it was seen, the last number, breakers
-- {namespace}:traffic:ended                    sessions of the page, by when they would have ended by themselves
-- {namespace}:traffic:decisions                ids by when they were settled; {namespace}:traffic:records: by id

local call = redis.call
local KEY = KEYS[1] .. ':'
local WORKERS, DECISIONS, RECORDS, ENDED = KEY .. 'workers', KEY .. 'decisions', KEY .. 'records', KEY .. 'ended'
local OTHER = '(other)'

local function seconds()
  local time = call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1e6
end

local function piece_of(kind, level, start)
  return KEY .. kind .. ':' .. level .. ':' .. start
end

local TRILLION = 1e12
local function halves(text)
  local sign = 1
  if string.sub(text, 1, 1) == '-' then
    sign, text = -1, string.sub(text, 2)
  end
  return sign * (tonumber(string.sub(text, 1, -13)) or 0), sign * tonumber(string.sub(text, -12))
end

local function sum(one, other)
  if #one < 16 and #other < 16 then
    return string.format('%.0f', tonumber(one) + tonumber(other))
  end
  local high, low = halves(one)
  local high2, low2 = halves(other)
  high, low = high + high2, low + low2
  if low >= TRILLION then
    high, low = high + 1, low - TRILLION
  elseif low <= -TRILLION then
    high, low = high - 1, low + TRILLION
  end
  if low < 0 and high > 0 then
    high, low = high - 1, low + TRILLION
  elseif low > 0 and high < 0 then
    high, low = high + 1, low - TRILLION
  end
  if high == 0 then
    return string.format('%.0f', low)
  end
  return string.format('%.0f%012.0f', high, math.abs(low))
end

local function plus(one, other)
  if not one or one == '' then
    return other
  end
  local sums, place = {}, 0
  for number in string.gmatch(one, '%S+') do
    sums[#sums + 1] = number
  end
  for number in string.gmatch(other, '%S+') do
    place = place + 1
    local mine = sums[place]
    sums[place] = (not mine or mine == '0') and number or number == '0' and mine or sum(mine, number)
  end
  return table.concat(sums, ' ')
end
