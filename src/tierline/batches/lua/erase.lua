-- Forget a job that has ended. ARGV: its name.
local job = ARGV[2]
local key = P .. 'job:' .. job
local uid = call('HGET', key, 'uid')
if not uid or call('SCARD', P .. 'open:' .. job) > 0 or owner_of(key) ~= '' then
  return '[false]'
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
return '[true]'
