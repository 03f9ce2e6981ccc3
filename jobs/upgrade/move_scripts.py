"""The atomic steps of ``jobs/upgrade/moves.py``, as Lua scripts for Redis 6.2."""

from __future__ import annotations

from typing import Final

MOVE_FIELDS: Final = """
-- Moves the fields that the target lacks, and deletes the source. Returns how many it moved.
-- KEYS: source hash, target hash.
local fields, count = redis.call('HGETALL', KEYS[1]), 0
for i = 1, #fields, 2 do
  count = count + redis.call('HSETNX', KEYS[2], fields[i], fields[i + 1])
end
redis.call('DEL', KEYS[1])
return count
"""

RENAME_QUEUES: Final = """
-- Renames the queues in job records. Returns the rest of the queue's name for each job that has the
-- old or the new prefix.
-- ARGV: prefix of job records, prefix of RQ's jobs, old and new prefix of queue names, job ids.
local rests = {}
for i = 5, #ARGV do
  local job, rq = ARGV[1] .. ARGV[i], ARGV[2] .. ARGV[i]
  local queue = redis.pcall('HGET', job, 'queue')
  for _, start in ipairs({ARGV[3], ARGV[4]}) do
    if type(queue) == 'string' and string.sub(queue, 1, #start) == start then
      local rest = string.sub(queue, #start + 1)
      redis.call('HSET', job, 'queue', ARGV[4] .. rest)
      if redis.call('EXISTS', rq) == 1 then redis.call('HSET', rq, 'origin', ARGV[4] .. rest) end
      rests[#rests + 1] = rest
    end
  end
end
return rests
"""

MOVE_QUEUE: Final = """
-- Moves the jobs whose records name the new queue to its front, in their order. Other ids stay.
-- Returns how many it moved.
-- KEYS: RQ's queues, slugs, old queue, its intermediate list, new queue. ARGV: name of the new
-- queue, slug, prefix of job records.
local moved = {}
for _, list in ipairs({KEYS[4], KEYS[3]}) do
  for _, id in ipairs(redis.call('LRANGE', list, 0, -1)) do
    if redis.pcall('HGET', ARGV[3] .. id, 'queue') == ARGV[1] then
      redis.call('LREM', list, 1, id)
      moved[#moved + 1] = id
    end
  end
end
for i = #moved, 1, -1 do
  local status = redis.call('HGET', ARGV[3] .. moved[i], 'status')
  if status == 'queued' then redis.call('LPUSH', KEYS[5], moved[i]) end
end
if #moved > 0 then
  redis.call('SADD', KEYS[1], KEYS[5])
  redis.call('SADD', KEYS[2], ARGV[2])
end
if redis.call('EXISTS', KEYS[3], KEYS[4]) == 0 then redis.call('SREM', KEYS[1], KEYS[3]) end
return #moved
"""

NOTE_EXPIRIES: Final = """
-- Adds jobs to the index of expiries, and removes ids without a record from the index of jobs.
-- Returns how many it added.
-- KEYS: index of jobs, index of expiries. ARGV: prefix of job records, then job ids.
local now, count = redis.call('TIME')[1], 0
for i = 2, #ARGV do
  local ttl = redis.call('TTL', ARGV[1] .. ARGV[i])
  if ttl == -2 then redis.call('ZREM', KEYS[1], ARGV[i])
  else
    count = count + redis.call('ZADD', KEYS[2], 'NX', now + math.max(ttl, 0) + 1, ARGV[i])
  end
end
return count
"""
