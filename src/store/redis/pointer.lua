-- Says whose a token is, unless another session holds it. KEYS[1]: the token.
-- ARGV: home and session, milliseconds, 1 to say so whoever holds it.
local held = redis.call('GET', KEYS[1])
if held and ARGV[3] ~= '1' and string.sub(held, 17) ~= string.sub(ARGV[1], 17) then return { 'held', held } end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return { 'stored' }
