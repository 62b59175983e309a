-- How many jobs have a batch that is not done.
local seen, number = {}, 0
for _, batch in ipairs(call('ZRANGE', P .. 'due', 0, -1)) do
  local job = call('HGET', P .. 'batch:' .. batch, 'job')
  if job and not seen[job] then
    seen[job], number = true, number + 1
  end
end
return cjson.encode({number})
