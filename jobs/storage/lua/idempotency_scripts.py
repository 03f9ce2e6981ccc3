"""Scripts for idempotency keys: of equal requests with one key, one makes a job or an object.

All may be sent twice after a lost reply.
"""

from __future__ import annotations

from typing import Final

CLAIM: Final = """
-- Says what a request with the key is. Returns
-- {'new', suffix, created}: the first, or the first after one that made nothing;
-- {'open', suffix, created}: an equal one is at work (a job: this one may do the same);
-- {'job', suffix, created}: it has made a job, which exists;
-- {'done', print, status, content type, location, body}: it has been answered with that;
-- {'differs'}: it has another path or body;
-- {'free'}: it would be the first, but it gave no suffix: it only looks.
-- A job that was cancelled, or failed with one of the codes, is not remembered. The suffix of its
-- id is kept for as long as an equal request may still submit it.
-- KEYS: key. ARGV: path, print ('': not known yet), new suffix, lease in s, ttl in s, prefix of job
-- records, number of codes, the codes.
local it = redis.call('HMGET', KEYS[1], 'path', 'print', 'suffix', 'created', 'state', 'until',
  'job')
local now = redis.call('TIME')
local seconds = tonumber(now[1])
local is_equal = it[1] == ARGV[1] and (it[2] == ARGV[2] or ARGV[2] == '' or it[2] == '')
local is_leased = seconds < (tonumber(it[6]) or 0)
local suffix, created = ARGV[3], now[1]
if it[1] then
  local job = {}
  if it[7] then
    job = redis.pcall('HMGET', ARGV[6] .. it[7], 'status', 'error_code', 'cancel')
  end
  local is_cancelled = job[1] == 'cancelled'
    or (job[1] == 'queued' or job[1] == 'running') and (job[3] or '') ~= ''
  local is_kept = job[1] and not is_cancelled
  for i = 8, 7 + ARGV[7] do
    if job[1] == 'failed' and job[2] == ARGV[i] then is_kept = false end
  end
  local state = it[5]
  if it[3] == ARGV[3] then return {'new', it[3], it[4]} end  -- sent twice
  if is_kept then state = 'job'
  elseif job[1] or not (state == 'done' or (state == 'open' and is_leased)) then state = 'free' end
  if state ~= 'free' and not is_equal then return {'differs'} end
  if state == 'job' or state == 'open' then return {state, it[3], it[4]} end
  if state == 'done' then
    local answer = redis.call('HMGET', KEYS[1], 'print', 'status', 'type', 'location', 'body')
    return {'done', unpack(answer)}
  end
  if ARGV[3] ~= '' and is_equal and is_leased and not job[1] then suffix, created = it[3], it[4] end
end
if suffix == '' then return {'free'} end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'path', ARGV[1], 'print', ARGV[2], 'suffix', suffix, 'created', created,
  'state', 'open', 'until', seconds + ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return {'new', suffix, created}
"""

RENEW: Final = """
-- Goes on with a request that makes no job. KEYS: key. ARGV: suffix, lease in s.
if redis.call('HGET', KEYS[1], 'suffix') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'until', redis.call('TIME')[1] + ARGV[2])
return 1
"""

BIND: Final = """
-- Enters the job's id, before its submission, and who waits for it. A key that a request of another
-- body has taken over meanwhile stays as it is.
-- KEYS: key, readers of the job. ARGV: suffix, job id, ttl in s, reader ('': none).
if redis.call('HGET', KEYS[1], 'suffix') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'job', ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
if ARGV[4] ~= '' then
  redis.call('SADD', KEYS[2], ARGV[4])
  redis.call('EXPIRE', KEYS[2], ARGV[3])
end
return 1
"""

CLOSE: Final = """
-- Ends a request: a key whose job has ended stays as long as the job's log; one that has made no
-- job or object may be used for another request. Returns 1 if it is remembered.
-- KEYS: key. ARGV: suffix, ttl in s, prefix of job records, print, then if the answer is to be
-- stored: its status, content type, location, body.
local it = redis.call('HMGET', KEYS[1], 'suffix', 'job', 'state')
if it[1] ~= ARGV[1] then return 0 end
if #ARGV > 4 then
  redis.call('HSET', KEYS[1], 'state', 'done', 'print', ARGV[4], 'status', ARGV[5],
    'type', ARGV[6], 'location', ARGV[7], 'body', ARGV[8])
  redis.call('EXPIRE', KEYS[1], ARGV[2])
  return 1
end
local status = it[2] and redis.pcall('HGET', ARGV[3] .. it[2], 'status')
if type(status) ~= 'string' then
  if it[3] == 'open' then redis.call('HSET', KEYS[1], 'state', 'free') end
  return 0
end
if status ~= 'queued' and status ~= 'running' then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return 1
"""

LEAVE: Final = """
-- A reader goes. Returns 1 if the job has not ended. KEYS: readers of the job, job. ARGV: reader.
redis.call('SREM', KEYS[1], ARGV[1])
local status = redis.pcall('HGET', KEYS[2], 'status')
return (status == 'queued' or status == 'running') and 1 or 0
"""

CANCEL_UNREAD: Final = """
-- Notes a cancel request on a job that no live API process reads. Returns 1 if it is to be
-- cancelled. KEYS: job, readers of the job. ARGV: prefix of the API processes' heartbeats, reason.
for _, reader in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local api = string.match(reader, '^[^|]*')
  if redis.call('EXISTS', ARGV[1] .. api) == 1 then return 0 end
end
local status = redis.pcall('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'running' then return 0 end
redis.call('HSET', KEYS[1], 'cancel', ARGV[2])
return 1
"""
