"""Submits jobs. The script may be sent twice after a lost reply."""

from __future__ import annotations

from typing import Final

from jobs.storage.lua.job_scripts import RESERVE_S

_DEADLINE_LEAD_S = 60  # before its deadline a job goes ahead of its caller's later ones

SUBMIT: Final = (
    f"local reserve, deadline_lead = {RESERVE_S}, {_DEADLINE_LEAD_S}"
    + """
-- Writes all records of a job and queues it. Returns 'done' (now or earlier), or the limit that the
-- job would exceed: 'queue', 'caller', 'all'; or 'draining'.
-- A caller that had nothing waiting is lifted to the use of those who wait, or else of the one
-- whose job was taken last, so that nobody saves up a claim (VTC, arXiv 2401.00588).
-- KEYS: job, request, index of jobs, index of expiries, live jobs, live jobs of the caller, queue,
-- list that wakes its consumer, slugs, RQ's job, RQ's queues, held classes, callers with hints,
-- used tokens; if there is a stored response: it and the index of their expiries. ARGV: job id,
-- slug ('': no model's), ttl in s until the end sets it, request, 1 for the front of the queue, 1
-- if limits count the job, limits (0: none) for the queue, the caller and all, the stored record
-- ('': none), its ttl in s, class ('': none), caller, seconds by which it goes later, deadline in
-- epoch seconds ('': none), 1 if lists of jobs show it, length of the job's record, the job's
-- record, RQ's hash.
local id, ttl = ARGV[1], ARGV[3]
if redis.call('EXISTS', KEYS[1]) == 1 then return 'done' end
local prefix = string.sub(KEYS[1], 1, -#id - 1)
local function is_full(live, limit)
  if limit == 0 or redis.call('ZCARD', live) < limit then return false end
  -- A job whose record expired before its end must not count for ever.
  for _, old in ipairs(redis.call('ZRANGE', live, 0, 99)) do
    local status = redis.pcall('HGET', prefix .. old, 'status')
    if status ~= 'queued' and status ~= 'running' then redis.call('ZREM', live, old) end
  end
  return redis.call('ZCARD', live) >= limit
end
local class, caller = ARGV[12], ARGV[13]
if class ~= '' and redis.call('HGET', KEYS[12], class) == 'drain' then return 'draining' end
local in_queue, num_waiting = tonumber(ARGV[7]), redis.call('LLEN', KEYS[7])
if in_queue > 0 and num_waiting >= in_queue then return 'queue' end
if is_full(KEYS[6], tonumber(ARGV[8])) then return 'caller' end
if is_full(KEYS[5], tonumber(ARGV[9])) then return 'all' end
local now = redis.call('TIME')
local created_at = now[1] .. '.' .. string.format('%06d', now[2])
local last = 17 + tonumber(ARGV[17])
redis.call('HSET', KEYS[1], 'created_at', created_at, unpack(ARGV, 18, last))
redis.call('SET', KEYS[2], ARGV[4], 'EX', ttl + reserve)
redis.call('HSET', KEYS[10], unpack(ARGV, last + 1))
for _, key in ipairs({KEYS[1], KEYS[10]}) do redis.call('EXPIRE', key, ttl + reserve) end
if ARGV[16] == '1' then redis.call('ZADD', KEYS[3], created_at, id) end
redis.call('ZADD', KEYS[4], now[1] + ttl, id)
if ARGV[6] == '1' then
  for _, live in ipairs({KEYS[5], KEYS[6]}) do
    redis.call('ZADD', live, created_at, id)
    redis.call('ZREMRANGEBYSCORE', live, 0, now[1] - ttl)
    redis.call('EXPIRE', live, ttl + reserve)
  end
end
if ARGV[10] ~= '' then
  redis.call('HSET', KEYS[15], 'record', ARGV[10])
  redis.call('EXPIRE', KEYS[15], ARGV[11] + reserve)
  redis.call('ZADD', KEYS[16], now[1] + ARGV[11], id)
end
local function used(of) return tonumber(redis.call('HGET', KEYS[14], class .. ':' .. of)) or 0 end
if class ~= '' and ARGV[5] ~= '1' then
  local lead = tonumber(ARGV[15]) and tonumber(ARGV[15]) - deadline_lead or math.huge
  local score = math.min(tonumber(created_at), lead) + tonumber(ARGV[14])
  if redis.call('SADD', KEYS[13], caller) == 1 then
    local least
    for _, other in ipairs(redis.call('SMEMBERS', KEYS[13])) do
      if other ~= caller then least = math.min(least or math.huge, used(other)) end
    end
    if not least then
      local former = redis.call('HGET', KEYS[14], 'last:' .. class)
      least = former and used(former) or 0
    end
    if least > used(caller) then redis.call('HSET', KEYS[14], class .. ':' .. caller, least) end
  end
  redis.call('ZADD', KEYS[13] .. ':' .. caller, string.format('%.6f', score), id)
end
if ARGV[2] ~= '' then redis.call('SADD', KEYS[9], ARGV[2]) end
redis.call('SADD', KEYS[11], KEYS[7])
redis.call(ARGV[5] == '1' and 'LPUSH' or 'RPUSH', KEYS[7], id)
redis.call('LPUSH', KEYS[8], '1')
redis.call('LTRIM', KEYS[8], 0, 0)
return 'done'
"""
)
