-- Put before every script of every part, after SCHEMA and OLDEST: what this program knows, and what it asks of others.
--
-- KEYS[1]             begins with {namespace}: as every key does
-- {namespace}:schema  steps: the highest schema that a program has brought; oldest: who knows less may not go on
do
  local key = string.match(KEYS[1], '^{[^}]*}:') .. 'schema'
  local found = redis.call('HMGET', key, 'steps', 'oldest')
  local steps, oldest = tonumber(found[1] or 0), tonumber(found[2] or 0)
  if oldest > SCHEMA then
    return redis.error_reply('NEWER ' .. found[2])
  end
  if steps < SCHEMA or oldest < OLDEST then
    redis.call('HSET', key, 'steps', math.max(steps, SCHEMA), 'oldest', math.max(oldest, OLDEST))
  end
end

