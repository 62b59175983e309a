-- Forget the jobs that have ended, and to which nothing has happened for so many seconds. ARGV: those.
local number = 0
for _, job in ipairs(call('ZRANGEBYSCORE', P .. 'touched', '-inf', now - tonumber(ARGV[2]))) do
  if erase(job) then
    number = number + 1
  end
end
return cjson.encode({number})
