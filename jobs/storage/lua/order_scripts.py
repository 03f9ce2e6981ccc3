"""Holds of queues and changes of priority. Each script may be sent twice after a lost reply."""

from __future__ import annotations

from typing import Final

HOLD: Final = """
-- Holds or drains classes of a desired model. Returns 1, or 0 if the model is not desired. A class
-- that is so already keeps its time and its name.
-- KEYS: held classes, desired models, slugs (what is in it is retired, and with it the hold). ARGV:
-- slug, 'hold' or 'drain', by whom, classes.
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 0 end
local now = redis.call('TIME')
for i = 4, #ARGV do
  local class = ARGV[i]
  if redis.call('HGET', KEYS[1], class) ~= ARGV[2] then
    redis.call('HSET', KEYS[1], class, ARGV[2], class .. ':by', ARGV[3],
      class .. ':at', now[1] .. '.' .. string.format('%06d', now[2]))
  end
end
redis.call('SADD', KEYS[3], ARGV[1])
return 1
"""

RESUME: Final = """
-- Ends the holds of classes, notes when, and wakes the consumers of their queues. Returns how many
-- were held.
-- KEYS: held classes, then the list that wakes the consumer of each class. ARGV: classes.
local now = redis.call('TIME')
local num = 0
for i, class in ipairs(ARGV) do
  if redis.call('HDEL', KEYS[1], class) == 1 then
    num = num + 1
    redis.call('HDEL', KEYS[1], class .. ':by', class .. ':at')
    redis.call('HSET', KEYS[1], class .. ':resumed_at',
      now[1] .. '.' .. string.format('%06d', now[2]))
  end
  redis.call('LPUSH', KEYS[1 + i], '1')
  redis.call('LTRIM', KEYS[1 + i], 0, 0)
end
return num
"""

CHANGE_PRIORITY: Final = """
-- Changes the priority of a waiting job, in its record and in its hint. A job that was put back has
-- no hint, and goes first in any case. Returns 'done'; 'gone'; or the job's status if it does not
-- wait, also if a worker is just taking it.
-- KEYS: job, queue. ARGV: job id, the new priority, seconds per level, prefix of the queue's hints.
local state = redis.call('HMGET', KEYS[1], 'status', 'priority', 'caller')
if not state[1] then return 'gone' end
if state[1] ~= 'queued' then return state[1] end
if not redis.call('LPOS', KEYS[2], ARGV[1]) then return 'running' end
local former, hint = tonumber(state[2]) or 0, ARGV[4] .. (state[3] or '')
local score = redis.call('ZSCORE', hint, ARGV[1])
redis.call('HSET', KEYS[1], 'priority', ARGV[2])
if score then
  score = tonumber(score) + (tonumber(ARGV[2]) - former) * tonumber(ARGV[3])
  redis.call('ZADD', hint, string.format('%.6f', score), ARGV[1])
end
return 'done'
"""
