-- Drop what is kept of an account. ARGV: the account; how names of its jobs begin; pieces, as JSON.
local account, begins = ARGV[1], ARGV[2]
for _, piece in ipairs(cjson.decode(ARGV[3])) do
  local mine, jobs = piece_of('account', piece[1], piece[2]), piece_of('job', piece[1], piece[2])
  call('HDEL', mine, account)
  call('ZREM', mine .. ':cost', account)
  for _, name in ipairs(call('HKEYS', jobs)) do
    if string.sub(name, 1, #begins) == begins then
      call('HDEL', jobs, name)
      call('ZREM', jobs .. ':cost', name)
    end
  end
end
local records = call('HGETALL', RECORDS)
for place = 2, #records, 2 do
  -- The account comes first, and may have a line break in it; the record is one line.
  if string.match(records[place], '^(.*)\n') == account then
    call('HDEL', RECORDS, records[place - 1])
    call('ZREM', DECISIONS, records[place - 1])
  end
end
return '[]'
