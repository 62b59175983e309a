-- Give requests their results. ARGV: whoever has them, when; then for each its handle and its result.
local by, number = ARGV[2], 0
for at = 4, #ARGV, 2 do
  local each = of(ARGV[at])
  if each and has(each, by) then
    change(each, {state = 'answered', job = '', owner = '', ['until'] = '0', request = '', result = ARGV[at + 1],
      answered = ARGV[3], due = ARGV[3], delivery = each.target ~= '' and 'waiting' or ''})
    number = number + 1
  end
end
return cjson.encode({number})
