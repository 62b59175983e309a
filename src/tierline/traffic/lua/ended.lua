-- Sessions of the page that have ended before their time. ARGV: the time; one more of them, and when it would have ended.
if ARGV[2] then
  call('ZREMRANGEBYSCORE', ENDED, '-inf', ARGV[1])
  call('ZADD', ENDED, ARGV[3], ARGV[2])
end
return cjson.encode(call('ZRANGEBYSCORE', ENDED, '(' .. ARGV[1], '+inf'))
