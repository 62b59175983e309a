-- Put before each script of this folder. Each answers with JSON.
--
-- KEYS[1]  {namespace}:verdicts; every other key begins alike, and so is in the same slot of a cluster
--
-- {namespace}:verdicts         the keys of all verdicts, by when they are too old (ms)
-- {namespace}:verdicts:about   hits, saved: over all time
-- {namespace}:verdicts:<key>   a verdict. v: the value, a: whose it is, h: how often it was found

local call = redis.call
local ALL, ABOUT = KEYS[1], KEYS[1] .. ':about'

local function of(key)
  return ALL .. ':' .. key
end
local function now()
  local time = call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local function ms(number)
  return string.format('%.0f', number)
end
-- What stands there, where it is what we would write; else nothing.
local function field(key, name)
  local found = redis.pcall('HGET', of(key), name)
  return type(found) == 'string' and found or ''
end
