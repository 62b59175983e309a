-- Forget answers that came before a moment. ARGV: when, how many at most.
local found = call('ZRANGEBYSCORE', P .. 'done', '-inf', '(' .. ARGV[2], 'LIMIT', 0, ARGV[3])
for _, handle in ipairs(found) do
  call('UNLINK', key(handle))
  call('ZREM', P .. 'done', handle)
  call('ZREM', P .. 'all', handle)
end
return cjson.encode({#found})
