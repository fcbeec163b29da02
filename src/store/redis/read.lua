-- What was stored of a home after a version. KEYS[6]: the epoch of the bucket. ARGV: version, epoch ('' for any).
if ARGV[2] ~= '' and redis.call('GET', KEYS[6]) ~= ARGV[2] then return { 'epoch' } end
return stored_after('read', tonumber(ARGV[1]))
