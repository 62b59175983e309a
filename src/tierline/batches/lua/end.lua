-- Forget holds. ARGV: ids.
for at = 2, #ARGV do
  local id = ARGV[at]
  local batch = call('HGET', P .. 'of', id)
  if batch then
    call('HDEL', P .. 'held:' .. batch, id)
  end
  call('HDEL', P .. 'of', id)
  call('ZREM', P .. 'holds', id)
  drop_intent(id)
end
return '[]'
