-- Take in what came back. ARGV: the batch, the owner; then for each its place, the state that it is to have, its
-- outcome, its result ('' for none, '+' before any), its cost, 1 where that is estimated, and what it would have cost
-- without a batch and on the top tier. The first: what stands for a result of a tenant that was erased.
local batch, owner = ARGV[2], ARGV[3]
if not has(batch, owner) then
  return '[false]'
end
local job, held = call('HGET', P .. 'batch:' .. batch, 'job'), P .. 'held:' .. batch
for at = 5, #ARGV, 8 do
  local place, state, outcome = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local each = item(job, place)
  if each and each[BATCH] == batch and each[STATE] ~= FINAL and each[STATE] ~= state then
    local result = ARGV[at + 3]
    if call('HEXISTS', P .. 'payloads:' .. job, place) == 0 then
      state, outcome, result = FINAL, 'canceled', '+' .. ARGV[4]
    end
    if each[STATE] == WAITING then
      call('ZREM', P .. 'wait:' .. batch, place)
      call('HINCRBY', P .. 'sums:' .. job, 'w', -1)
    else
      call('ZREM', P .. 'in:' .. batch, place)
    end
    each[STATE], each[OUTCOME] = state, outcome
    if state == WAITING then
      call('ZADD', P .. 'wait:' .. batch, place, place)
      call('HINCRBY', P .. 'sums:' .. job, 'w', 1)
    else
      each[COST], each[ESTIMATED], each[SAID] = ARGV[at + 4], ARGV[at + 5], ''
      call('HDEL', P .. 'payloads:' .. job, place)
      count(job, '', -1, 0)
      count(job, each[OUTCOME], 1, each[COST])
      tally(job, each, '', -1)
      tally(job, each, each[OUTCOME], 1,
        {cost = each[COST], guesses = each[ESTIMATED], plain = ARGV[at + 6], top = ARGV[at + 7]})
      call('HINCRBY', held, 'c' .. each[HOLD], each[COST])
      call('HINCRBY', held, 'n' .. each[HOLD], 1)
      if each[ESTIMATED] == '1' then
        call('HSET', held, 'e' .. each[HOLD], '1')
      end
    end
    if result ~= '' then
      call('HSET', P .. 'results:' .. job, place, string.sub(result, 2))
    end
    keep(job, place, each)
  end
end
return '[true]'
