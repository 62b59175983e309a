-- Drop what is kept of a tenant in a job. ARGV: the job, the tenant, the place before, how many to look at, what stands
-- for a result then.
local job, tenant, erased = ARGV[2], ARGV[3], ARGV[6]
local places = call('ZRANGEBYSCORE', P .. 'places:' .. job, '(' .. ARGV[4], '+inf', 'LIMIT', 0, ARGV[5])
if #places == 0 then
  -- What all of them came to is nobody's from now on.
  local key = P .. 'tally:' .. job
  local flat = call('HGETALL', key)
  for at = 1, #flat, 2 do
    local name = cjson.decode(flat[at])
    if name[1] == tenant then
      name[1], name[3] = '', name[3] == '' and '' or 'canceled'
      call('HINCRBY', key, cjson.encode(name), flat[at + 1])
      call('HDEL', key, flat[at])
    end
  end
  return '[""]'
end
for _, place in ipairs(places) do
  local each = item(job, place)
  if each[TENANT] == tenant then
    local batch = P .. 'batch:' .. each[BATCH]
    local state = each[STATE] == SENT and call('HGET', batch, 'state')
    if each[STATE] == WAITING or state == 'filling' or state == 'sealed' then
      if each[STATE] == WAITING then
        call('ZREM', P .. 'wait:' .. each[BATCH], place)
        call('HINCRBY', P .. 'sums:' .. job, 'w', -1)
      else
        call('ZREM', P .. 'in:' .. each[BATCH], place)
        call('HINCRBY', batch, 'number', -1)
        call('HINCRBY', batch, 'bytes', -1 - call('HSTRLEN', P .. 'payloads:' .. job, place))
      end
      call('HINCRBY', P .. 'held:' .. each[BATCH], 'n' .. each[HOLD], 1)
      count(job, '', -1, 0)
      count(job, 'canceled', 1, 0)
      tally(job, each, '', -1)
      tally(job, each, 'canceled', 1)
      each[STATE], each[OUTCOME] = FINAL, 'canceled'
    elseif each[STATE] == FINAL then
      count(job, each[OUTCOME], -1, each[COST] == '0' and '0' or '-' .. each[COST])
      count(job, 'canceled', 1, each[COST])
      each[OUTCOME] = 'canceled'
    end
    if each[STATE] == FINAL then
      call('HSET', P .. 'results:' .. job, place, erased)
    else
      call('HDEL', P .. 'results:' .. job, place)
    end
    if each[NAME] ~= '' then
      call('HDEL', P .. 'names:' .. job, each[NAME])
    end
    call('HDEL', P .. 'payloads:' .. job, place)
    each[NAME], each[TENANT], each[SAID] = '', '', ''
    keep(job, place, each)
  end
end
return cjson.encode({places[#places]})
