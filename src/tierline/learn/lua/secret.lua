-- The secret; that of whoever comes first.
-- ARGV: one to begin with.
call('HSETNX', ABOUT, 'secret', ARGV[2])
return cjson.encode({call('HGET', ABOUT, 'secret')})
