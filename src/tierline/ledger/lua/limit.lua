-- Set a limit, or take it back (''). ARGV: budget and account as JSON, limit.
if ARGV[6] == '' then
  call('HDEL', LIMITS, ARGV[5])
else
  call('HSET', LIMITS, ARGV[5], ARGV[6])
end
local version = call('HINCRBY', META, 'version', 1)
return answer('done', tostring(version), call('HGETALL', LIMITS))
