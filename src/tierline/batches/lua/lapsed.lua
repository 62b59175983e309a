-- Holds that were intended by somebody who is gone. ARGV: how many at most.
return cjson.encode(call('ZRANGEBYSCORE', P .. 'intents', '-inf', now, 'LIMIT', 0, ARGV[2]))
