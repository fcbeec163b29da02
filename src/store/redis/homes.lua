-- The homes of some buckets' users. KEYS: the lists. ARGV: now.
local homes = {}
for _, list in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', list, '-inf', ARGV[1])
  for _, home in ipairs(redis.call('ZRANGE', list, 0, -1)) do homes[#homes + 1] = home end
end
return homes
