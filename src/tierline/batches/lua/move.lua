-- Put requests that wait into another batch. ARGV: the batch, the owner, the other, the hold, what settling it needs,
-- JSON of intents; places.
local batch, owner, to, id = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local intents, job = cjson.decode(ARGV[7]), call('HGET', P .. 'batch:' .. batch, 'job')
local first = item(job, ARGV[8])
if first and first[BATCH] == to and first[HOLD] == id then
  return '[true]' -- this very script has been run
end
if not has(batch, owner) or not may_fill(to, owner) or not all_intended(intents) then
  return '[false]'
end
for at = 8, #ARGV do
  local each = item(job, ARGV[at])
  if not each or each[BATCH] ~= batch or each[STATE] ~= WAITING then
    return '[false]'
  end
end
filling(job, to, owner)
local size = 0
for at = 8, #ARGV do
  local place, each = ARGV[at], item(job, ARGV[at])
  each[BATCH], each[HOLD], each[STATE], each[OUTCOME] = to, id, SENT, ''
  each[TRIES] = tostring(tonumber(each[TRIES]) + 1)
  keep(job, place, each)
  call('ZREM', P .. 'wait:' .. batch, place)
  call('ZADD', P .. 'in:' .. to, place, place)
  call('HDEL', P .. 'results:' .. job, place)
  size = size + call('HSTRLEN', P .. 'payloads:' .. job, place) + 1
end
call('HINCRBY', P .. 'sums:' .. job, 'w', 7 - #ARGV)
call('HINCRBY', P .. 'batch:' .. to, 'number', #ARGV - 7)
call('HINCRBY', P .. 'batch:' .. to, 'bytes', size)
for _, each in ipairs(intents) do
  drop_intent(each)
end
hold(to, id, ARGV[6])
return '[true]'
