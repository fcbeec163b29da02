-- What was stored of a home after a version, or the first part of it. KEYS[6]: the epoch of the bucket.
-- ARGV: version, epoch ('' for any).
if ARGV[2] ~= '' and redis.call('GET', KEYS[6]) ~= ARGV[2] then return { 'epoch' } end
return stored_after('read', 'part', tonumber(ARGV[1]))
