-- When a session was last active. KEYS[1]: records; KEYS[2]: activity; KEYS[3]: the epoch of the bucket. ARGV: id, epoch.
if redis.call('GET', KEYS[3]) ~= ARGV[2] then return { 'epoch' } end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return { 'missing' } end
return { 'active', redis.call('HGET', KEYS[2], ARGV[1]) or '' }
