-- Drop accounts. ARGV: their names. Holds of them keep the generation that is gone.
if not lapse() then
  return answer('more')
end
for place = 5, #ARGV do
  call('DEL', account(ARGV[place]))
  call('ZREM', ACCOUNTS, ARGV[place])
end
return answer('done')
