-- Notes an activity of a session that is stored. KEYS[6]: the epoch of the bucket; KEYS[7]: its users' homes.
-- ARGV: id, last activity, when the session may be forgotten, now, epoch ('' for any), the home if it is a user's.
if ARGV[5] ~= '' and redis.call('GET', KEYS[6]) ~= ARGV[5] then return { 'epoch' } end
if redis.call('HEXISTS', records, ARGV[1]) == 0 then return { 'missing' } end
note_activity(ARGV[1], ARGV[2])
if tonumber(ARGV[3]) > tonumber(redis.call('ZSCORE', terms, ARGV[1]) or '0') then
  redis.call('ZADD', terms, ARGV[3], ARGV[1])
end
-- Half a day is well within what is added to every term.
local left = redis.call('PTTL', records)
local last = tonumber(redis.call('ZREVRANGE', terms, 0, 0, 'WITHSCORES')[2] or '0')
if left < last - tonumber(ARGV[4]) - 43200000 or redis.call('PTTL', activity) < 0 then
  keep_until_last(tonumber(ARGV[4]), KEYS[7], ARGV[6])
end
return { 'stored' }
