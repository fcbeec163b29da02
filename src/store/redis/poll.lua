-- What was announced in a bucket after an entry of its log. KEYS: log, epoch. ARGV: the entry's id.
local answer = { redis.call('GET', KEYS[2]) or '' }
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 1000)) do
  answer[#answer + 1] = entry[1]
  answer[#answer + 1] = entry[2][2]
end
return answer
