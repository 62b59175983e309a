-- The names of all jobs.
return cjson.encode(call('ZRANGE', P .. 'jobs', 0, -1))
