"""The atomic steps of a job's life, as Lua scripts for Redis 6.2.

Each may be sent twice after a lost reply and then answers as the first time. Together they are
the fence: an event or an end is accepted only from the job's current attempt, and only one end.
"""

from __future__ import annotations

from typing import Final

SUBMIT: Final = """
-- KEYS: job, request, index of jobs, live jobs, live jobs of the caller, queue, RQ's job, RQ's
-- queues. ARGV: job id, creation time, ttl in s of what nobody ends, request, 1 for the front of
-- the queue, 1 if limits count it, limits (0: none) of the queue, of the caller, of all, number of
-- words of the record, the record, RQ's hash.
-- Answers 'done' (now or earlier), or which limit it would exceed: 'queue', 'caller', 'all'.
local id, created_at, ttl = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', KEYS[1]) == 1 then return 'done' end
local prefix = string.sub(KEYS[1], 1, -#id - 1)
local function is_full(live, limit)
  if limit == 0 or redis.call('ZCARD', live) < limit then return false end
  -- An end that nobody wrote (its record has expired) must not take a place for ever.
  for _, old in ipairs(redis.call('ZRANGE', live, 0, 99)) do
    local status = redis.call('HGET', prefix .. old, 'status')
    if status ~= 'queued' and status ~= 'running' then redis.call('ZREM', live, old) end
  end
  return redis.call('ZCARD', live) >= limit
end
local in_queue = tonumber(ARGV[7])
if in_queue > 0 and redis.call('LLEN', KEYS[6]) >= in_queue then return 'queue' end
if is_full(KEYS[5], tonumber(ARGV[8])) then return 'caller' end
if is_full(KEYS[4], tonumber(ARGV[9])) then return 'all' end
local last = 10 + tonumber(ARGV[10])
redis.call('HSET', KEYS[1], unpack(ARGV, 11, last))
redis.call('SET', KEYS[2], ARGV[4], 'EX', ttl)
redis.call('HSET', KEYS[7], unpack(ARGV, last + 1))
for _, key in ipairs({KEYS[1], KEYS[7]}) do redis.call('EXPIRE', key, ttl) end
for _, index in ipairs({KEYS[3], KEYS[4], KEYS[5]}) do
  if index == KEYS[3] or ARGV[6] == '1' then
    redis.call('ZADD', index, created_at, id)
    redis.call('ZREMRANGEBYSCORE', index, 0, created_at - ttl)
  end
end
redis.call('SADD', KEYS[8], KEYS[6])
redis.call(ARGV[5] == '1' and 'LPUSH' or 'RPUSH', KEYS[6], id)
return 'done'
"""

OPEN_ATTEMPT: Final = """
-- KEYS: job, log, request, claims of the worker. ARGV: job id, worker name.
-- Answers {'open', attempt, newest seq in the log, request, seconds queued, reason of a cancel,
-- deaths}, or {'gone'} (no record, or none that can be read) or {'ended'}.
-- From here on the log refuses every earlier attempt.
local state = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'created_at', 'cancel', 'deaths')
local status, created_at = state[1], tonumber(state[3])
if not status or not created_at or not tonumber(state[2] or '0') then return {'gone'} end
if status ~= 'queued' and status ~= 'running' then return {'ended'} end
redis.call('SADD', KEYS[4], ARGV[1])
local now = redis.call('TIME')
local attempt = redis.call('HINCRBY', KEYS[1], 'attempt', 1)
redis.call('HSET', KEYS[1], 'status', 'running', 'worker', ARGV[2])
redis.call('HSETNX', KEYS[1], 'started_at', now[1] .. '.' .. string.format('%06d', now[2]))
local seq = 0
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if newest[1] then seq = tonumber(string.match(newest[1][1], '-(%d+)$')) end
local queued_s = tostring(now[1] + now[2] / 1000000 - created_at)
local request = redis.call('GET', KEYS[3]) or ''
return {'open', attempt, seq, request, queued_s, state[4] or '', tonumber(state[5]) or 0}
"""

APPEND: Final = """
-- KEYS: (job, log) per event. ARGV: (attempt, seq, channel, line) per event.
-- Answers one number per event: 1 written now or earlier, 0 refused (not the current attempt).
-- An error that passes (no memory, a full disk) is raised: the whole may be sent again.
local answers = {}
for i = 1, #KEYS / 2 do
  local job, log = KEYS[2 * i - 1], KEYS[2 * i]
  local attempt, seq = ARGV[4 * i - 3], ARGV[4 * i - 2]
  local state = redis.call('HMGET', job, 'status', 'attempt')
  if state[1] == 'running' and state[2] == attempt then
    local id = attempt .. '-' .. seq
    local reply = redis.pcall('XADD', log, id, 'e', ARGV[4 * i])
    if type(reply) == 'string' then
      redis.call('PUBLISH', ARGV[4 * i - 1], ARGV[4 * i])
      answers[i] = 1
    elseif string.find(reply.err, 'equal or smaller', 1, true) then
      answers[i] = #redis.call('XRANGE', log, id, id)
    else
      return reply
    end
  else
    answers[i] = 0
  end
end
return answers
"""

_END: Final = """
-- Ends a job: event, record, expiries, totals. nil: done; else why the log refuses the event.
local function finish(job, log, request, live, id, status, line, channel, ttl, code, job_id, caller,
  totals, amounts)
  local reply = redis.pcall('XADD', log, id, 'e', line)
  if type(reply) ~= 'string' then return reply end
  local now = redis.call('TIME')
  redis.call('HSET', job, 'status', status, 'end', id, 'error_code', code,
    'ended_at', now[1] .. '.' .. string.format('%06d', now[2]))
  for _, key in ipairs({job, log, request}) do redis.call('EXPIRE', key, ttl) end
  redis.call('ZREM', live, job_id)
  redis.call('ZREM', live .. ':' .. (caller or ''), job_id)
  redis.call('PUBLISH', channel, line)
  local about = redis.call('HMGET', job, 'task', 'model_id')
  local task, model_id = about[1] or '', about[2] or ''
  redis.call('HINCRBY', totals, 'jobs ' .. task .. ' ' .. status .. ' ' .. model_id, 1)
  for i = 1, #amounts, 2 do
    redis.call('HINCRBYFLOAT', totals, amounts[i] .. ' ' .. model_id, amounts[i + 1])
  end
end
"""

SETTLE: Final = (
    _END
    + """
-- KEYS: job, log, request, live jobs, totals. ARGV: attempt, seq, status, line, channel, ttl in s,
-- error code, job id, then (name, amount) per sum that the job adds to.
-- Answers 1 when this end is the job's end (now or earlier), 0 when it is not.
local state = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'end', 'caller')
if not state[1] then return 0 end
local id = ARGV[1] .. '-' .. ARGV[2]
if state[1] ~= 'queued' and state[1] ~= 'running' then
  if state[3] == id then return 1 end
  return 0
end
if (state[2] or '0') ~= ARGV[1] then return 0 end
local refusal = finish(KEYS[1], KEYS[2], KEYS[3], KEYS[4], id, ARGV[3], ARGV[4], ARGV[5], ARGV[6],
  ARGV[7], ARGV[8], state[4], KEYS[5], {unpack(ARGV, 9)})
if not refusal then return 1 end
-- Who settles from outside has seen an older log: the worker speaks on.
if string.find(refusal.err, 'equal or smaller', 1, true) then return 0 end
return refusal
"""
)

PURGE: Final = (
    _END
    + """
-- KEYS: queue, live jobs, totals, then (job, log, request, RQ's job) per job. ARGV: reason, code of
-- it, ttl in s, then (job id, channel, line of the event 0-1) per job.
-- Ends jobs that no worker has ever taken. Answers one number per job: 1 ended so now or earlier,
-- 0 not to be ended so: it is no more on the queue, or has been in a worker's hands.
local answers = {}
for i = 1, (#KEYS - 3) / 4 do
  local job, log, request, rq = unpack(KEYS, 4 * i, 4 * i + 3)
  local job_id, channel, line = unpack(ARGV, 3 * i + 1, 3 * i + 3)
  local state = redis.call('HMGET', job, 'status', 'attempt', 'end', 'caller', 'cancel')
  answers[i] = 0
  if state[1] == 'cancelled' and state[3] == '0-1' and state[5] == ARGV[1] then
    answers[i] = 1
  elseif state[1] == 'queued' and (state[2] or '0') == '0'
    and redis.call('LREM', KEYS[1], 1, job_id) == 1 then
    redis.call('HSET', job, 'cancel', ARGV[1])
    local refusal = finish(job, log, request, KEYS[2], '0-1', 'cancelled', line, channel, ARGV[3],
      ARGV[2], job_id, state[4], KEYS[3], {})
    if refusal then
      redis.call('LPUSH', KEYS[1], job_id)
      return refusal
    end
    if redis.call('EXISTS', rq) == 1 then
      redis.call('HSET', rq, 'status', 'canceled')
      redis.call('EXPIRE', rq, ARGV[3])
    end
    answers[i] = 1
  end
end
return answers
"""
)

REQUEST_CANCEL: Final = """
-- KEYS: job. ARGV: reason. Answers {'gone' | status, attempt, worker}.
local state = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'worker')
if not state[1] then return {'gone', '0', ''} end
if state[1] == 'queued' or state[1] == 'running' then
  redis.call('HSET', KEYS[1], 'cancel', ARGV[1])
end
return {state[1], state[2] or '0', state[3] or ''}
"""

RETURN_TO_QUEUE: Final = """
-- KEYS: job, intermediate list, queue. ARGV: job id, 1 to count a worker's death.
-- Puts a job that no worker runs any more at the front of its queue. Answers 1 if it did.
redis.call('LREM', KEYS[2], 0, ARGV[1])
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'running' then return 0 end
redis.call('HSET', KEYS[1], 'status', 'queued', 'worker', '')
if ARGV[2] == '1' and status == 'running' then redis.call('HINCRBY', KEYS[1], 'deaths', 1) end
redis.call('LREM', KEYS[3], 0, ARGV[1])
redis.call('LPUSH', KEYS[3], ARGV[1])
return 1
"""

REPLACE_OWNER: Final = """
-- KEYS: lock. ARGV: owner expected and new owner ('' = none), ttl in s. Answers 1 when replaced.
local current = redis.call('GET', KEYS[1]) or ''
if current == ARGV[2] then return 1 end
if current ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
return 1
"""

SWAP_FIELD: Final = """
-- KEYS: hash. ARGV: field, expected value ('' = absent), new value ('' = delete).
-- Answers {1} when swapped (or already the new value), {0, current} when not.
local current = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if current == ARGV[3] then return {1} end
if current ~= ARGV[2] then return {0, current} end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1])
else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return {1}
"""
