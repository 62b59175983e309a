-- A request. ARGV: its handle.
if call('EXISTS', key(ARGV[2])) == 0 then
  return '[]'
end
return cjson.encode(row(ARGV[2]))
