-- Drop some of the verdicts. Answers with 1 where there may be more, else 0.
local BATCH = 500
local some = call('ZPOPMIN', ALL, BATCH)
for place = 1, #some, 2 do
  call('DEL', of(some[place]))
end
return cjson.encode({#some == 2 * BATCH and 1 or 0})
