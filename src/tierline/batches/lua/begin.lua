-- Submit to a job. ARGV: its name, a uid for a new one, the owner, settings.
local job, uid, owner, settings = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local key = P .. 'job:' .. job
if call('EXISTS', key) == 0 then
  call('HSET', key, 'uid', uid, 'owner', '', 'until', '0', 'settings', settings, 'whole', '0', 'canceled', '0')
  call('SET', P .. 'uid:' .. uid, job)
  call('ZADD', P .. 'jobs', call('INCR', P .. 'number'), job)
end
local living = owner_of(key)
local busy = living ~= '' and living ~= owner
if not busy then
  call('HSET', key, 'owner', owner, 'until', due_by)
  touch(job)
  own(owner, 'j' .. job)
end
local found = call('HMGET', key, 'uid', 'whole', 'settings', 'canceled')
return cjson.encode({found[1], busy, found[2] == '1', found[3], found[4] == '1'})
