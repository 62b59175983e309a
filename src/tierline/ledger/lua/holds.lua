-- Holds. ARGV: the cursor of a scan. Each: id, seconds that its lease has left, record. The scan may give one twice.
if not lapse() then
  return answer('more')
end
local found = call('ZSCAN', LEASES, ARGV[5], 'COUNT', 500)
local rows = {}
for place = 1, #found[2], 2 do
  local id = found[2][place]
  local kept = call('GET', KEY .. 'h:' .. id)
  if kept then
    rows[#rows + 1] = id
    rows[#rows + 1] = text(tonumber(found[2][place + 1]) - moment)
    rows[#rows + 1] = kept
  end
end
return answer('done', found[1], rows)
