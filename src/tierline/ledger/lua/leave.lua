-- A member goes: nobody need wait for what it knows. ARGV: the member.
call('ZREM', MEMBERS, ARGV[5])
return answer('done')
