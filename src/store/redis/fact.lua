-- Keeps a value under a name, unless a later one is there. KEYS[1]: all of them.
-- ARGV: name; stamp of 36 digits and value; channel; gateway.
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held == ARGV[2] then return { 'stored' } end
if held and string.sub(held, 1, 36) > string.sub(ARGV[2], 1, 36) then return { 'held', held } end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return { 'stored' }
