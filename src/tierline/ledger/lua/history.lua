-- Spend of a few hours. ARGV: since, until (not included). Each: hour, fields. Then where to go on ('': that was all).
if not lapse() then
  return answer('more')
end
for _, hour in ipairs(call('ZRANGEBYSCORE', HOURS, '-inf', text(now - RETENTION), 'LIMIT', 0, BATCH)) do
  call('ZREM', HOURS, hour)
  call('DEL', KEY .. 'hour:' .. hour)
end
local hours = call('ZRANGEBYSCORE', HOURS, ARGV[5], '(' .. ARGV[6], 'LIMIT', 0, BATCH)
local rows = {}
for _, hour in ipairs(hours) do
  rows[#rows + 1] = hour
  rows[#rows + 1] = call('HGETALL', KEY .. 'hour:' .. hour)
end
return answer('done', #hours == BATCH and '(' .. hours[#hours] or '', rows)
