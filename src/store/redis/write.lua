-- Stores what one gateway made of the sessions of a home, unless another one stored something since it looked.
-- KEYS[6]: the log of the bucket; KEYS[7]: its epoch; KEYS[8]: its users' homes.
-- ARGV: base version, proposed version, now, epoch ('' for any), channel, announcement, the home if it is a user's, then
-- seven for each session: id, record ('' removes it), what becomes of the jar (keep, remove, put), jar, when it may be
-- forgotten, last activity, the gateway that says it ended ('' if it has not).
-- Answers the new version, and which sessions another gateway had ended before.
local base, now = tonumber(ARGV[1]), tonumber(ARGV[3])
if ARGV[4] ~= '' and redis.call('GET', KEYS[7]) ~= ARGV[4] then return { 'epoch' } end
local current = version()
if current ~= base then return stored_after('behind', 'behind', base) end
local new = math.max(current + 1, tonumber(ARGV[2]))
local answer = { 'stored', int(new) }
for i = 8, #ARGV, 7 do
  local id, record, jar = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if record == '' then
    remove(id)
  else
    redis.call('HSET', records, id, record)
    redis.call('ZADD', versions, int(new), id)
    redis.call('ZADD', terms, ARGV[i + 4], id)
    note_activity(id, ARGV[i + 5])
    if jar == 'put' then redis.call('HSET', jars, id, ARGV[i + 3]) end
    if jar == 'remove' then redis.call('HDEL', jars, id) end
    if ARGV[i + 6] ~= '' and first_to_end(id, ARGV[i + 6]) ~= ARGV[i + 6] then answer[#answer + 1] = id end
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', terms, '-inf', int(now), 'LIMIT', 0, 100)) do remove(id) end
if redis.call('ZCARD', terms) == 0 then
  for key = 1, 5 do redis.call('DEL', KEYS[key]) end
  redis.call('ZREM', KEYS[8], ARGV[7])
else
  redis.call('ZADD', versions, int(new), COUNTER)
  keep_until_last(now, KEYS[8], ARGV[7])
end
local time = tonumber(redis.call('TIME')[1])
redis.call('XADD', KEYS[6], 'MINID', '~', int((time - 60) * 1000), '*', 'a', ARGV[6])
redis.call('PEXPIRE', KEYS[6], 120000)
redis.call('PUBLISH', ARGV[5], ARGV[6])
return answer
