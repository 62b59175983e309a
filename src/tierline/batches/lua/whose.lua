-- The batch that a request is in. ARGV: the uid of its job, its place.
local job = call('GET', P .. 'uid:' .. ARGV[2])
local each = job and item(job, ARGV[3])
return cjson.encode({each and each[BATCH] or ''})
