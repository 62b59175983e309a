-- The value of each key of ARGV; empty where there is none.
local found = {}
for place, key in ipairs(ARGV) do
  found[place] = field(key, 'v')
end
return #found > 0 and cjson.encode(found) or '[]'
