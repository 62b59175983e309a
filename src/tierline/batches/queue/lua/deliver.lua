-- Write down how a delivery went. ARGV: the handle, the owner, delivery, due, tries.
local each = of(ARGV[2])
if each and each.state == 'answered' and each.delivery == 'waiting' and each.owner == ARGV[3] then
  change(each, {owner = '', ['until'] = '0', delivery = ARGV[4], due = ARGV[5], tries = ARGV[6]})
end
return '[]'
