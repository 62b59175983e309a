-- How many verdicts count, how often one was found, nano-USD that this saved.
local about = call('HMGET', ABOUT, 'hits', 'saved')
return cjson.encode({
  ms(call('ZCOUNT', ALL, '(' .. ms(now()), '+inf')), about[1] or '0', about[2] or '0'
})
