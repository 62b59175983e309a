-- Records, the newest first. ARGV: an id; or '', how many at most, and the place before which they stand: a moment
-- ('+inf': any) and an id.
if ARGV[1] ~= '' then
  return cjson.encode({call('HGET', RECORDS, ARGV[1]) or nil})
end
local most, at, id = tonumber(ARGV[2]), ARGV[3], ARGV[4]
local found = {}
local function take(ids)
  for _, each in ipairs(ids) do
    if #found < most then
      found[#found + 1] = call('HGET', RECORDS, each) or nil
    end
  end
end
if id ~= '' then
  local before = {}
  for _, each in ipairs(call('ZREVRANGEBYSCORE', DECISIONS, at, at)) do
    if each < id then
      before[#before + 1] = each
    end
  end
  take(before)
end
take(call('ZREVRANGEBYSCORE', DECISIONS, '(' .. at, '-inf', 'LIMIT', 0, most))
return cjson.encode(found)
