-- Whether nothing more will come of a job. ARGV: its name.
local key = P .. 'job:' .. ARGV[2]
if call('EXISTS', key) == 0 then
  return '[]'
end
return cjson.encode({call('SCARD', P .. 'open:' .. ARGV[2]) == 0 and owner_of(key) == ''})
