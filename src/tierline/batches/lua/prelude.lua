-- Put before each script of this folder. Each answers with JSON; lists of it may be empty objects.
--
-- KEYS[1]  {namespace}:batches; every other key begins alike, and so is in the same slot of a cluster
-- ARGV     the lease in seconds; then the script's
--
-- Money is decimal text that is added up by HINCRBY: a number of Lua is exact up to 2^53 only.
--
-- P:jobs          names of jobs, by number; P:number: the last of them
-- P:job:<id>      uid, owner, until, settings, whole, canceled; P:uid:<uid>: its id
-- P:names:<job>   custom id to place; P:places:<job>: all places
-- P:items:<job>   by place, a JSON array: see ITEM; P:payloads:<job>, P:results:<job>: the texts of them
-- P:tally:<job>   by a JSON array of account, tier, outcome and kind (n, cost, plain, top, guesses): sums
-- P:sums:<job>    n<outcome>: how many requests, c<outcome>: their cost ('' has none yet); w: how many wait
-- P:batch:<id>    the fields of FIELDS, and owner, until
-- P:in:<batch>    places of requests that are in it; P:wait:<batch>: of those that wait in it
-- P:held:<batch>  ids of its holds, with what settling them needs; c<id>: what they came to; e<id>: estimated;
--                 n<id>: how many requests of theirs have a result
-- P:due           batches that are not done, by when they are to be looked at by whoever does not own them
-- P:open:<job>    batches of a job that are not done; P:all:<job>: all of them
-- P:api           the API's ids of batches
-- P:touched       jobs, by when somebody last submitted to them, or a batch of them was done
-- P:holds         ids of holds that were made; P:of: their batches
-- P:intents       ids of holds that are about to be made, by when whoever makes them is taken for gone
-- P:owned:<owner> what somebody has the lease of: j<job>, b<batch>, i<hold>

local call = redis.call
local P, LEASE = KEYS[1] .. ':', tonumber(ARGV[1])
local time = call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local due_by = string.format('%.6f', now + LEASE)
local FIELDS = {'job', 'state', 'due', 'api', 'number', 'bytes', 'sent', 'fails', 'note', 'trace', 'fetches'}
local NAME, BATCH, HOLD, STATE, TRIES, WORST, TIER, MODEL, OUTCOME, COST, ESTIMATED = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local TENANT, PLAIN, TOP, SAID = 12, 13, 14, 15 -- PLAIN and TOP where it came with its result
local WAITING, SENT, FINAL = '0', '1', '2'

local function own(owner, what)
  call('SADD', P .. 'owned:' .. owner, what)
  call('EXPIRE', P .. 'owned:' .. owner, 86400)
end

local function disown(owner, what)
  call('SREM', P .. 'owned:' .. owner, what)
end

local function item(job, place)
  local found = call('HGET', P .. 'items:' .. job, place)
  return found and cjson.decode(found)
end

local function keep(job, place, each)
  call('HSET', P .. 'items:' .. job, place, cjson.encode(each))
end

local function count(job, outcome, number, cost)
  call('HINCRBY', P .. 'sums:' .. job, 'n' .. outcome, number)
  call('HINCRBY', P .. 'sums:' .. job, 'c' .. outcome, cost)
end

local function touch(job)
  call('ZADD', P .. 'touched', now, job)
end

-- Count a request with an outcome; `money` has what more is known of it, by kind.
local function tally(job, each, outcome, number, money)
  local function add(kind, amount)
    call('HINCRBY', P .. 'tally:' .. job, cjson.encode({each[TENANT], each[TIER], outcome, kind}), amount)
  end
  add('n', number)
  for kind, amount in pairs(money or {}) do
    if amount ~= '0' then
      add(kind, amount)
    end
  end
end

local function owner_of(key)
  local found = call('HMGET', key, 'owner', 'until')
  if not found[1] or found[1] == '' or tonumber(found[2]) <= now then
    return ''
  end
  return found[1]
end

local function has(batch, owner)
  return call('HGET', P .. 'batch:' .. batch, 'owner') == owner
end

local function make_batch(job, batch, state, owner)
  call('HSET', P .. 'batch:' .. batch, 'job', job, 'state', state, 'due', '0', 'api', '', 'number', '0', 'bytes', '0',
    'sent', '0', 'fails', '0', 'note', '', 'trace', '', 'fetches', '0', 'owner', owner, 'until', due_by)
  call('ZADD', P .. 'due', owner == '' and '0' or due_by, batch)
  call('SADD', P .. 'open:' .. job, batch)
  call('SADD', P .. 'all:' .. job, batch)
  if owner ~= '' then
    own(owner, 'b' .. batch)
  end
end

-- Whether this owner fills a batch, which is made if it is new.
local function filling(job, batch, owner)
  local known = call('HGET', P .. 'batch:' .. batch, 'state')
  if not known then
    make_batch(job, batch, 'filling', owner)
    return true
  end
  return known == 'filling' and has(batch, owner)
end

local function may_fill(batch, owner)
  local known = call('HGET', P .. 'batch:' .. batch, 'state')
  return not known or (known == 'filling' and has(batch, owner))
end

local function all_intended(intents)
  for _, id in ipairs(intents) do
    if not call('ZSCORE', P .. 'intents', id) then
      return false
    end
  end
  return true
end

local function drop_intent(id)
  local owner = call('HGET', P .. 'intent', id)
  if owner then
    disown(owner, 'i' .. id)
  end
  call('HDEL', P .. 'intent', id)
  call('ZREM', P .. 'intents', id)
end

local function hold(batch, id, entry)
  call('HSET', P .. 'held:' .. batch, id, entry)
  call('ZADD', P .. 'holds', 0, id)
  call('HSET', P .. 'of', id, batch)
end

-- Forget a job that has ended. Whether it had.
local function erase(job)
  local key = P .. 'job:' .. job
  local uid = call('HGET', key, 'uid')
  if not uid or call('SCARD', P .. 'open:' .. job) > 0 or owner_of(key) ~= '' then
    return false
  end
  for _, batch in ipairs(call('SMEMBERS', P .. 'all:' .. job)) do
    local api = call('HGET', P .. 'batch:' .. batch, 'api')
    if api and api ~= '' then
      call('HDEL', P .. 'api', api)
    end
    for _, kind in ipairs({'batch:', 'in:', 'wait:', 'held:'}) do
      call('UNLINK', P .. kind .. batch)
    end
  end
  for _, kind in ipairs({'names:', 'places:', 'items:', 'payloads:', 'results:', 'sums:', 'tally:', 'all:', 'job:'}) do
    call('UNLINK', P .. kind .. job)
  end
  call('DEL', P .. 'uid:' .. uid)
  call('ZREM', P .. 'jobs', job)
  call('ZREM', P .. 'touched', job)
  return true
end

-- The fields of a batch, with those of its job that go with it.
local function row(batch)
  local found = call('HMGET', P .. 'batch:' .. batch, unpack(FIELDS))
  if not found[1] then
    return nil
  end
  local about = call('HMGET', P .. 'job:' .. found[1], 'uid', 'canceled', 'settings')
  table.insert(found, 1, batch)
  for place = 1, 3 do
    found[#found + 1] = about[place] or ''
  end
  return found
end
