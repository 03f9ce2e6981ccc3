"""Parks models, as a Lua script for Redis 6.2. It may be sent twice after a lost reply."""

from __future__ import annotations

from typing import Final

PARK: Final = """
-- Marks a desired model as parked and refuses all further takes of its workers. Returns 1 if it is
-- parked (now or earlier); 0 if a job of it is taken, or waits, or if its entry has changed; -1 if
-- ARGV[4] does not own the model. What is not a job's id in a list does not count.
-- KEYS: desired models, lock of the model's owner, claims of the model, its queues, their
-- intermediate lists, take keys of its workers. ARGV: slug, its entry, its entry when parked,
-- owner, 1 if jobs may wait, ttl in s of the take keys, number of queues, prefix of job records.
local num = tonumber(ARGV[7])
if redis.call('GET', KEYS[2]) ~= ARGV[4] then return -1 end
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if entry == ARGV[3] then return 1 end
if entry ~= ARGV[2] or redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local function has_jobs(list)
  for _, id in ipairs(redis.call('LRANGE', list, 0, -1)) do
    if redis.call('EXISTS', ARGV[8] .. id) == 1 then return true end
  end
  return false
end
for i = 1, num do
  if has_jobs(KEYS[3 + num + i]) then return 0 end
  if ARGV[5] ~= '1' and has_jobs(KEYS[3 + i]) then return 0 end
end
for i = 4 + 2 * num, #KEYS do redis.call('SET', KEYS[i], 'dead', 'EX', ARGV[6]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
