-- What was announced in some buckets after an entry of the log of each. KEYS: logs. ARGV: the entries' ids.
local answer = {}
for n, log in ipairs(KEYS) do
  local found = {}
  for _, entry in ipairs(redis.call('XRANGE', log, '(' .. ARGV[n], '+', 'COUNT', 1000)) do
    found[#found + 1] = entry[1]
    found[#found + 1] = entry[2][2]
  end
  answer[n] = found
end
return answer
