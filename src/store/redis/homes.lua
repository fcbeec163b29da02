-- The homes of a bucket's users. KEYS[1]: the list. ARGV: now.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
return redis.call('ZRANGE', KEYS[1], 0, -1)
