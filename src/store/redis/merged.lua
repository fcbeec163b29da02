-- A gateway has stored what it knows. Its name and the term of all names in one step: cut off between two, it would leave
-- names that stay for ever. Returns who has.
-- KEYS: the names; ARGV: the gateway's name, the term in milliseconds.
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('SMEMBERS', KEYS[1])
