-- What is kept of accounts, for processes that remember it. ARGV: the cursor of a scan, the name of an account ('': all),
-- version of the limits.
-- Each: name, its fields. The scan may give one twice.
if not lapse() then
  return answer('more')
end
if (meta[3] or '0') ~= ARGV[7] then
  return answer('limits', meta[3] or '0', call('HGETALL', LIMITS))
end
local found = call('ZSCAN', ACCOUNTS, ARGV[5], 'COUNT', 500)
local rows = {}
for place = 1, #found[2], 2 do
  local name = found[2][place]
  if ARGV[6] == '' or cjson.decode(name)[2] == ARGV[6] then
    local ends = call('HGET', account(name), 'n')
    if not ends then
      call('ZREM', ACCOUNTS, name)
    elseif number(ends) > now or prune(name) then
      rows[#rows + 1] = name
      rows[#rows + 1] = call('HGETALL', account(name))
    end
  end
end
return answer('done', found[1], rows)
