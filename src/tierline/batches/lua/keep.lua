-- Begin leases anew. ARGV: the owner.
for _, what in ipairs(call('SMEMBERS', P .. 'owned:' .. ARGV[2])) do
  local kind, id = string.sub(what, 1, 1), string.sub(what, 2)
  if kind == 'i' then
    if call('ZSCORE', P .. 'intents', id) then
      call('ZADD', P .. 'intents', due_by, id)
    end
  else
    local key = P .. (kind == 'j' and 'job:' or 'batch:') .. id
    if call('HGET', key, 'owner') == ARGV[2] then
      call('HSET', key, 'until', due_by)
      if kind == 'b' then
        call('ZADD', P .. 'due', due_by, id)
      end
    end
  end
end
call('EXPIRE', P .. 'owned:' .. ARGV[2], 86400)
return '[]'
