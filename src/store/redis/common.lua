-- The sessions of one home. KEYS[1..5]: records, versions, when each may be forgotten, activity, jars.
local records, versions, terms, activity, jars = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local COUNTER = '#'

local function int(n)
  return string.format('%.0f', n)
end

local function version()
  return tonumber(redis.call('ZSCORE', versions, COUNTER) or '0')
end

-- So many sessions are told of at once: a robot may have very many, and nobody else is to wait for it.
local MOST = 1000

-- What was stored after the version `since`; everything where the home is not that far any more. Of much, the first part:
-- up to the version that is answered, which is not the home's then.
local function stored_after(whole, part, since)
  local told = version()
  if since > told then since = 0 end
  local status, from = whole, '(' .. int(since)
  local found = redis.call('ZRANGEBYSCORE', versions, from, '+inf', 'LIMIT', 0, MOST)
  if #found == MOST then
    -- Those of one version go together.
    local last = redis.call('ZSCORE', versions, found[MOST])
    found = redis.call('ZRANGEBYSCORE', versions, from, last)
    if tonumber(last) < told then status, told = part, tonumber(last) end
  end
  local answer = { status, int(told) }
  for _, id in ipairs(found) do
    if id ~= COUNTER then
      answer[#answer + 1] = id
      answer[#answer + 1] = redis.call('HGET', records, id)
      answer[#answer + 1] = redis.call('HGET', activity, id)
      answer[#answer + 1] = redis.call('HGET', jars, id)
    end
  end
  return answer
end

local function remove(id)
  redis.call('HDEL', records, id)
  redis.call('HDEL', activity, id, id .. '!')
  redis.call('HDEL', jars, id)
  redis.call('ZREM', versions, id)
  redis.call('ZREM', terms, id)
end

local function note_activity(id, at)
  if tonumber(at) > tonumber(redis.call('HGET', activity, id) or '0') then
    redis.call('HSET', activity, id, at)
  end
end

-- The gateway whose end of the session was stored first: that one tells of it. Noted beside the activity.
local function first_to_end(id, gateway)
  redis.call('HSETNX', activity, id .. '!', gateway)
  return redis.call('HGET', activity, id .. '!')
end

-- The home is kept for as long as the last of its sessions, and in the list of homes if it is a user's.
local function keep_until_last(now, homes, home)
  local last = redis.call('ZREVRANGE', terms, 0, 0, 'WITHSCORES')[2]
  if not last then return end
  if home ~= '' then redis.call('ZADD', homes, last, home) end
  local ttl = math.max(1, math.min(tonumber(last) - now, 315360000000))
  for key = 1, 5 do redis.call('PEXPIRE', KEYS[key], int(ttl)) end
end
