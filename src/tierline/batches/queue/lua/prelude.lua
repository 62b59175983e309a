-- Put before each script of this folder. Each answers with JSON; lists of it may be empty objects.
--
-- KEYS[1]  {namespace}:queue; every other key begins alike, and so is in the same slot of a cluster
-- ARGV     the lease in seconds; then the script's
--
-- P:all             handles of all requests, in order; P:number: the last of them
-- P:item:<handle>   the fields of FIELDS, and owner, until
-- A request is in the sets of its state alone; scores are moments:
--   waiting         P:act by act_by; P:later:<when_full> by ready, or P:fill:<when_full> by fill_by
--   gathered        P:late by call_by; P:in:<group> by place
--   calling         P:calling by when the lease ends
--   answered        P:out:<target> by due, or by when the lease ends, while it is to be delivered; P:done by answered
-- P:group:<id>      when_full, number, due, submitted, seen, canceled, owner
-- P:groups          groups, by due, or by when the lease ends

local call = redis.call
local P, LEASE = KEYS[1] .. ':', tonumber(ARGV[1])
local time = call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local until_ = string.format('%.6f', now + LEASE)
local FIELDS = {'handle', 'tenant', 'name', 'when_full', 'target', 'created', 'ready', 'fill_by', 'act_by', 'call_by',
  'deadline', 'request', 'state', 'job', 'place', 'result', 'answered', 'delivery', 'due', 'tries'}

local function key(handle)
  return P .. 'item:' .. handle
end

local function row(handle)
  return call('HMGET', key(handle), unpack(FIELDS))
end

local function of(handle)
  local flat, found = call('HGETALL', key(handle)), {}
  for at = 1, #flat, 2 do
    found[flat[at]] = flat[at + 1]
  end
  return found.state and found
end

-- Take a request out of the sets of its state.
local function unlist(each)
  local handle = each.handle
  if each.state == 'waiting' then
    call('ZREM', P .. 'act', handle)
    call('ZREM', P .. 'later:' .. each.when_full, handle)
    call('ZREM', P .. 'fill:' .. each.when_full, handle)
  elseif each.state == 'gathered' then
    call('ZREM', P .. 'late', handle)
    call('ZREM', P .. 'in:' .. each.job, handle)
  elseif each.state == 'calling' then
    call('ZREM', P .. 'calling', handle)
  else
    call('ZREM', P .. 'out:' .. each.target, handle)
    call('ZREM', P .. 'done', handle)
  end
end

-- Put a request into the sets of its state.
local function list(each)
  local handle = each.handle
  if each.state == 'waiting' then
    call('ZADD', P .. 'act', each.act_by, handle)
    call('ZADD', P .. 'later:' .. each.when_full, each.ready, handle)
  elseif each.state == 'gathered' then
    call('ZADD', P .. 'late', each.call_by, handle)
    call('ZADD', P .. 'in:' .. each.job, each.place, handle)
  elseif each.state == 'calling' then
    call('ZADD', P .. 'calling', each['until'], handle)
  elseif each.delivery == 'waiting' then
    call('ZADD', P .. 'out:' .. each.target, each.owner ~= '' and each['until'] or each.due, handle)
  else
    call('ZADD', P .. 'done', each.answered, handle)
  end
end

-- Let fields of a request be as given.
local function change(each, fields)
  unlist(each)
  for field, value in pairs(fields) do
    each[field] = value
    call('HSET', key(each.handle), field, value)
  end
  list(each)
end

-- Whether a request is in a group, or is called by an owner.
local function has(each, by)
  return (each.state == 'gathered' and each.job == by) or (each.state == 'calling' and each.owner == by)
end

local function owns(group, owner)
  return call('HGET', P .. 'group:' .. group, 'owner') == owner
end

-- The set of requests that may be put into a batch now, by when they must be.
local function ripe(when_full)
  local later, fill = P .. 'later:' .. when_full, P .. 'fill:' .. when_full
  for _, handle in ipairs(call('ZRANGEBYSCORE', later, '-inf', now)) do
    call('ZREM', later, handle)
    call('ZADD', fill, call('HGET', key(handle), 'fill_by'), handle)
  end
  return fill
end
