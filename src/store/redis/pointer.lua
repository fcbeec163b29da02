-- Says whose a token is, unless another session holds it, or the same one has moved to another home. KEYS[1]: the token.
-- ARGV: home and session, milliseconds, how (0: unless another session holds it; 1: whoever does; 2: unless anything else
-- stands there).
local held = redis.call('GET', KEYS[1])
local is_other = held and string.sub(held, 17) ~= string.sub(ARGV[1], 17)
if ARGV[3] == '0' and is_other or ARGV[3] == '2' and held and held ~= ARGV[1] then return { 'held', held } end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return { 'stored' }
