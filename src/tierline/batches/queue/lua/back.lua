-- Let requests wait anew. ARGV: whoever has them, ready, fill_by, act_by ('' for their own), handles.
for at = 6, #ARGV do
  local each = of(ARGV[at])
  if each and has(each, ARGV[2]) then
    change(each, {state = 'waiting', job = '', owner = '', ['until'] = '0', ready = ARGV[3], fill_by = ARGV[4],
      act_by = ARGV[5] ~= '' and ARGV[5] or each.act_by})
  end
end
return '[]'
