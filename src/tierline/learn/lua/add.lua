-- Keep evidence whose id is not taken. Answers with 1 for each that is new, 0 for others.
-- ARGV: how many to keep, for how many seconds ids stay taken, a text of this very script;
-- then for each its id, its account, and itself.
local size, remember, me = ARGV[2], ARGV[3], ARGV[4]
local new = ''
for place = 5, #ARGV, 3 do
  local key, mine = OUTCOMES .. ':id:' .. ARGV[place], me .. place
  if call('SET', key, mine, 'NX', 'EX', remember) then
    local number = string.format('%.0f', call('HINCRBY', ABOUT, 'number', 1))
    call('XADD', OUTCOMES, 'MAXLEN', '=', size, number .. '-0', 'a', ARGV[place + 1], 'e', ARGV[place + 2])
    new = new .. '1'
  else
    new = new .. (call('GET', key) == mine and '1' or '0')
  end
end
return cjson.encode({new})
