-- Take requests in. ARGV: the job, the owner, the batch, the one for those that wait, JSON of intents and of holds;
-- then for each request its place, its item, its payload and its result.
local job, owner, batch, waits = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local intents, holds = cjson.decode(ARGV[6]), cjson.decode(ARGV[7])
local first, mine = item(job, ARGV[8]), cjson.decode(ARGV[9])
if first and first[HOLD] == mine[HOLD] and first[STATE] == mine[STATE] then
  return '[true]' -- this very script has been run
end
if call('HGET', P .. 'job:' .. job, 'owner') ~= owner or not may_fill(batch, owner) or not all_intended(intents) then
  return '[false]'
end
local number, size, waiting, unheld = 0, 0, 0, {}
for at = 8, #ARGV, 4 do
  local place, each, payload = ARGV[at], cjson.decode(ARGV[at + 1]), ARGV[at + 2]
  if each[STATE] == SENT then
    each[BATCH] = batch
    number, size = number + 1, size + #payload + 1
    call('ZADD', P .. 'in:' .. batch, place, place)
  elseif each[STATE] == WAITING then
    each[BATCH] = waits
    waiting = waiting + 1
    unheld[each[HOLD]] = true
    call('ZADD', P .. 'wait:' .. waits, place, place)
  end
  keep(job, place, each)
  call('ZADD', P .. 'places:' .. job, place, place)
  if each[NAME] ~= '' then
    call('HSET', P .. 'names:' .. job, each[NAME], place)
  end
  if each[STATE] == FINAL then
    call('HSET', P .. 'results:' .. job, place, ARGV[at + 3])
    count(job, each[OUTCOME], 1, each[COST])
    tally(job, each, each[OUTCOME], 1,
      {cost = each[COST], guesses = each[ESTIMATED], plain = each[PLAIN], top = each[TOP]})
  else
    call('HSET', P .. 'payloads:' .. job, place, payload)
    count(job, '', 1, 0)
    tally(job, each, '', 1)
  end
end
if number > 0 then
  filling(job, batch, owner)
  call('HINCRBY', P .. 'batch:' .. batch, 'number', number)
  call('HINCRBY', P .. 'batch:' .. batch, 'bytes', size)
end
if waiting > 0 then
  if call('EXISTS', P .. 'batch:' .. waits) == 0 then
    make_batch(job, waits, 'waiting', '')
  end
  call('HINCRBY', P .. 'sums:' .. job, 'w', waiting)
end
for _, id in ipairs(intents) do
  drop_intent(id)
end
for _, each in ipairs(holds) do
  hold(unheld[each[1]] and waits or batch, each[1], each[2])
end
return '[true]'
