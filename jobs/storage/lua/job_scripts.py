"""The atomic steps of a job's life, as Lua scripts for Redis 6.2.

Each may be sent twice after a lost reply: what it has done it does not do again. Together they are
the fence: an event or an end is accepted only from the job's current attempt, and only one end.
"""

from __future__ import annotations

from typing import Final

SUBMIT: Final = """
-- KEYS: job, request, index of jobs, index of expiries, live jobs, live jobs of the caller, queue,
-- list that wakes its consumer, slugs, RQ's job, RQ's queues, record to be stored beside the job
-- ('' for none). ARGV: job id, slug, ttl in s of what nobody ends, request, 1 for the front of the
-- queue, 1 if limits count it, limits (0: none) of the queue, of the caller, of all, the stored
-- record, its ttl in s, number of words of the job's record, that record, RQ's hash.
-- Answers 'done' (now or earlier), or which limit it would exceed: 'queue', 'caller', 'all'.
local id, ttl = ARGV[1], ARGV[3]
if redis.call('EXISTS', KEYS[1]) == 1 then return 'done' end
local prefix = string.sub(KEYS[1], 1, -#id - 1)
local function is_full(live, limit)
  if limit == 0 or redis.call('ZCARD', live) < limit then return false end
  -- An end that nobody wrote (its record has expired) must not take a place for ever.
  for _, old in ipairs(redis.call('ZRANGE', live, 0, 99)) do
    local status = redis.pcall('HGET', prefix .. old, 'status')
    if status ~= 'queued' and status ~= 'running' then redis.call('ZREM', live, old) end
  end
  return redis.call('ZCARD', live) >= limit
end
local in_queue, num_waiting = tonumber(ARGV[7]), redis.call('LLEN', KEYS[7])
if in_queue > 0 and num_waiting >= in_queue then return 'queue' end
if is_full(KEYS[6], tonumber(ARGV[8])) then return 'caller' end
if is_full(KEYS[5], tonumber(ARGV[9])) then return 'all' end
local now = redis.call('TIME')
local created_at = now[1] .. '.' .. string.format('%06d', now[2])
local last = 12 + tonumber(ARGV[12])
redis.call('HSET', KEYS[1], 'created_at', created_at, unpack(ARGV, 13, last))
redis.call('SET', KEYS[2], ARGV[4], 'EX', ttl)
redis.call('HSET', KEYS[10], unpack(ARGV, last + 1))
for _, key in ipairs({KEYS[1], KEYS[10]}) do redis.call('EXPIRE', key, ttl) end
redis.call('ZADD', KEYS[3], created_at, id)
redis.call('ZADD', KEYS[4], now[1] + ttl, id)
if ARGV[6] == '1' then
  for _, live in ipairs({KEYS[5], KEYS[6]}) do
    redis.call('ZADD', live, created_at, id)
    redis.call('ZREMRANGEBYSCORE', live, 0, now[1] - ttl)
    redis.call('EXPIRE', live, ttl)
  end
end
if ARGV[10] ~= '' then
  redis.call('HSET', KEYS[12], 'record', ARGV[10])
  redis.call('EXPIRE', KEYS[12], ARGV[11])
end
redis.call('SADD', KEYS[9], ARGV[2])
redis.call('SADD', KEYS[11], KEYS[7])
redis.call(ARGV[5] == '1' and 'LPUSH' or 'RPUSH', KEYS[7], id)
redis.call('LPUSH', KEYS[8], '1')
redis.call('LTRIM', KEYS[8], 0, 0)
return 'done'
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
local function finish(job, log, request, live, expiry, id, status, line, channel, ttl, code, job_id,
  caller, totals, amounts)
  local reply = redis.pcall('XADD', log, id, 'e', line)
  if type(reply) ~= 'string' and string.find(reply.err, 'WRONGTYPE', 1, true) then
    redis.call('DEL', log)  -- it is no log: of no use to anybody, and the end must be told
    reply = redis.pcall('XADD', log, id, 'e', line)
  end
  if type(reply) ~= 'string' then return reply end
  local now = redis.call('TIME')
  redis.call('HSET', job, 'status', status, 'end', id, 'error_code', code,
    'ended_at', now[1] .. '.' .. string.format('%06d', now[2]))
  for _, key in ipairs({job, log, request}) do redis.call('EXPIRE', key, ttl) end
  redis.call('ZADD', expiry, now[1] + ttl, job_id)
  redis.call('ZREM', live, job_id)
  redis.call('ZREM', live .. ':' .. (caller or ''), job_id)
  redis.call('PUBLISH', channel, line)
  local about = redis.call('HMGET', job, 'task', 'model_id', 'is_deleted')
  if about[3] then  -- by its client: only that it has ended is left
    redis.call('DEL', log, request)
    redis.call('XADD', log, id, 'e', line)
    redis.call('EXPIRE', log, ttl)
  end
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
-- KEYS: job, log, request, live jobs, index of expiries, totals, then the queue and its
-- intermediate list if the job is to leave them, then the lock of the model's owner if only that
-- may end it. ARGV: attempt, seq, status, line, channel, ttl in s, error code, job id, owner ('':
-- anybody), then (name, amount) per sum that the job adds to. Answers 1 when this end is the job's
-- end (now or earlier), 0 when it is not, -1 for who is not the owner.
if ARGV[9] ~= '' and redis.call('GET', KEYS[9]) ~= ARGV[9] then return -1 end
local state = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'end', 'caller')
if not state[1] then return 0 end
local id = ARGV[1] .. '-' .. ARGV[2]
if state[1] ~= 'queued' and state[1] ~= 'running' then
  if state[3] == id then return 1 end
  return 0
end
if (state[2] or '0') ~= ARGV[1] then return 0 end
local refusal = finish(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], id, ARGV[3], ARGV[4], ARGV[5],
  ARGV[6], ARGV[7], ARGV[8], state[4], KEYS[6], {unpack(ARGV, 10)})
if not refusal then
  for i = 7, math.min(#KEYS, 8) do redis.call('LREM', KEYS[i], 0, ARGV[8]) end
  return 1
end
-- Who settles from outside has seen an older log: the worker speaks on.
if string.find(refusal.err, 'equal or smaller', 1, true) then return 0 end
return refusal
"""
)

PURGE: Final = (
    _END
    + """
-- KEYS: queue, live jobs, index of expiries, totals, then (job, log, request, RQ's job) per job.
-- ARGV: reason, code of it, ttl in s, then (job id, channel, line of the event 0-1) per job.
-- Ends jobs that no worker has ever taken. Answers one number per job: 1 ended so now or earlier,
-- 0 not to be ended so: it is no more on the queue, or has been in a worker's hands.
local answers = {}
for i = 1, (#KEYS - 4) / 4 do
  local job, log, request, rq = unpack(KEYS, 4 * i + 1, 4 * i + 4)
  local job_id, channel, line = unpack(ARGV, 3 * i + 1, 3 * i + 3)
  local state = redis.call('HMGET', job, 'status', 'attempt', 'end', 'caller', 'cancel')
  answers[i] = 0
  if state[1] == 'cancelled' and state[3] == '0-1' and state[5] == ARGV[1] then
    answers[i] = 1
  elseif state[1] == 'queued' and (state[2] or '0') == '0'
    and redis.call('LREM', KEYS[1], 1, job_id) == 1 then
    redis.call('HSET', job, 'cancel', ARGV[1])
    local refusal = finish(job, log, request, KEYS[2], KEYS[3], '0-1', 'cancelled', line, channel,
      ARGV[3], ARGV[2], job_id, state[4], KEYS[4], {})
    if refusal then
      redis.call('LPUSH', KEYS[1], job_id)
      return refusal
    end
    if redis.call('EXISTS', rq) == 1 then
      redis.pcall('HSET', rq, 'status', 'canceled')
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

FORGET: Final = """
-- KEYS: job, log, request, record stored beside it. Deletes what the job was asked and has said,
-- and marks it, so that nobody is shown it any more. Of one that has not ended, log and request go
-- at its end: until then its worker needs them.
redis.call('DEL', KEYS[4])
local status = redis.call('HGET', KEYS[1], 'status')
if status then redis.call('HSET', KEYS[1], 'is_deleted', 1) end
if status ~= 'queued' and status ~= 'running' then redis.call('DEL', KEYS[2], KEYS[3]) end
return 1
"""

KEEP_ANSWER: Final = """
-- KEYS: record stored beside a job. ARGV: answer, ttl in s. Keeps the answer unless the record is
-- gone. Answers 1 if it is kept.
if redis.call('HEXISTS', KEYS[1], 'record') == 0 then return 0 end
redis.call('HSET', KEYS[1], 'answer', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""

RETIRE: Final = """
-- KEYS: slugs, desired models, claims of the model, RQ's queues, then per queue of the model: the
-- queue, its intermediate list, its wake list, RQ's registries. ARGV: slug, ttl in s of the
-- registries, number of queues. Forgets a model that nobody wants and of which nothing waits or
-- runs. Answers 1 if it is forgotten.
local slug, num = ARGV[1], tonumber(ARGV[3])
local each = (#KEYS - 4) / num
if redis.call('HEXISTS', KEYS[2], slug) == 1 or redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
for i = 0, num - 1 do
  if redis.call('EXISTS', KEYS[5 + i * each], KEYS[6 + i * each]) > 0 then return 0 end
end
for i = 0, num - 1 do
  redis.call('SREM', KEYS[4], KEYS[5 + i * each])
  redis.call('DEL', KEYS[7 + i * each])
  for j = 8 + i * each, 4 + (i + 1) * each do redis.call('EXPIRE', KEYS[j], ARGV[2]) end
end
redis.call('SREM', KEYS[1], slug)
return 1
"""

FORGET_EXPIRED: Final = """
-- KEYS: index of expiries, index of jobs, live jobs. ARGV: prefix of the jobs' records, how many at
-- most. Takes the ids of records that have expired off the indexes. Answers how many it looked at.
local now = redis.call('TIME')[1]
local due = redis.call('ZRANGEBYSCORE', KEYS[1], 0, now, 'LIMIT', 0, ARGV[2])
for _, id in ipairs(due) do
  local ttl = redis.call('TTL', ARGV[1] .. id)
  if ttl == -2 then
    for i = 1, 3 do redis.call('ZREM', KEYS[i], id) end
  else
    redis.call('ZADD', KEYS[1], now + math.max(ttl, 0) + 1, id)
  end
end
return #due
"""
