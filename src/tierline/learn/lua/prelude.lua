-- Put before each script of this folder. Each answers with JSON.
--
-- KEYS[1]  {namespace}:outcomes; every other key begins alike, and so is in the same slot of a cluster
-- ARGV     a random text; then the script's
--
-- {namespace}:outcomes         the stream of evidence, by number. e: JSON, a: whose it is
-- {namespace}:outcomes:about   number: of the last one; edition; secret
-- {namespace}:outcomes:id:<id> an id that is taken, and who took it

local call = redis.call
local OUTCOMES, ABOUT = KEYS[1], KEYS[1] .. ':about'

local edition = call('HGET', ABOUT, 'edition')
local function begin_edition()
  edition = ARGV[1]
  call('HSET', ABOUT, 'edition', edition)
end
if not edition then
  begin_edition()
end
