-- Count verdicts that were found. ARGV: nano-USD that this saved; then keys, each with how often.
local hits = 0
for place = 2, #ARGV, 2 do
  hits = hits + tonumber(ARGV[place + 1])
  if field(ARGV[place], 'v') ~= '' then
    call('HINCRBY', of(ARGV[place]), 'h', ARGV[place + 1])
  end
end
call('HINCRBY', ABOUT, 'hits', ms(hits))
call('HINCRBY', ABOUT, 'saved', ARGV[1])
return '[]'
