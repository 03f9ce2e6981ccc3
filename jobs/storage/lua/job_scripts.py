"""Atomic steps on jobs, as Lua scripts for Redis 6.2.

Each script is idempotent, so it may be sent twice after a lost reply. Together they fence off stale
workers: events are accepted only from the job's current attempt, and only one terminal event is.
"""

from __future__ import annotations

from typing import Final

from jobs.storage.lua.key_scripts import COUNT_USE
from jobs.storage.lua.webhook_scripts import QUEUE_EVENT

RESERVE_S: Final = 7 * 86400
"""What Redis deletes by itself, it deletes this much later than ``FORGET_EXPIRED`` does.

Redis' expiries go on while the machine sleeps, and are acted on before anybody can renew them.
"""

APPEND: Final = """
-- Writes events. Returns one number per event: 1 written now or earlier, 0 refused as stale.
-- A transient error (out of memory, full disk) is raised: the whole call may be sent again.
-- KEYS: (job, log) per event. ARGV: (attempt, seq, channel, line) per event.
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

_END: Final = (
    COUNT_USE
    + f"local reserve = {RESERVE_S}"
    + QUEUE_EVENT
    + """
-- Ends a job: event, record, expiries, totals, webhooks. Returns nil, or the log's error.
local function finish(job, log, request, live, expiry, id, status, line, channel, ttl, code, job_id,
  caller, totals, amounts)
  local reply = redis.pcall('XADD', log, id, 'e', line)
  if type(reply) ~= 'string' and string.find(reply.err, 'WRONGTYPE', 1, true) then
    redis.call('DEL', log)  -- not a stream, so useless; the end must be written
    reply = redis.pcall('XADD', log, id, 'e', line)
  end
  if type(reply) ~= 'string' then return reply end
  local now = redis.call('TIME')
  redis.call('HSET', job, 'status', status, 'end', id, 'error_code', code,
    'ended_at', now[1] .. '.' .. string.format('%06d', now[2]))
  for _, key in ipairs({job, log, request}) do redis.call('EXPIRE', key, ttl + reserve) end
  redis.call('ZADD', expiry, now[1] + ttl, job_id)
  redis.call('ZREM', live, job_id)
  redis.call('ZREM', live .. ':' .. (caller or ''), job_id)
  redis.call('PUBLISH', channel, line)
  local about = redis.call('HMGET', job, 'task', 'model_id', 'is_deleted', 'batch', 'yields',
    'is_background')
  if about[3] then  -- deleted by its client: keep only the terminal event
    redis.call('DEL', log, request)
    redis.call('XADD', log, id, 'e', line)
    redis.call('EXPIRE', log, ttl + reserve)
  end
  local task, model_id = about[1] or '', about[2] or ''
  redis.call('HINCRBY', totals, 'jobs ' .. task .. ' ' .. status .. ' ' .. model_id, 1)
  if (about[4] or '') ~= '' then
    redis.call('HINCRBYFLOAT', totals, 'lines_' .. status .. ' ' .. model_id, 1)
  end
  if (tonumber(about[5]) or 0) > 0 then
    redis.call('HINCRBYFLOAT', totals, 'yields ' .. model_id, about[5])
  end
  for i = 1, #amounts, 2 do
    redis.call('HINCRBYFLOAT', totals, amounts[i] .. ' ' .. model_id, amounts[i + 1])
  end
  -- What it cannot write, since a key is of another type, must not keep the job from its end.
  pcall(count_use, job, caller or '', status, amounts, now)
  local is_told = about[6] == '1' and not about[3] and (about[4] or '') == ''
  if is_told then queue_job_events(caller or '', log, job_id, status) end
end
"""
)

SETTLE: Final = (
    _END
    + """
-- Writes the terminal event. Returns 1 if it is the job's end (now or earlier), 0 if not, -1 if
-- ARGV[9] does not own the model.
-- KEYS: job, log, request, live jobs, index of expiries, totals; optionally the queue and its
-- intermediate list, which the job leaves; then optionally the lock of the model's owner. ARGV:
-- attempt, seq, status, line, channel, ttl in s, error code, job id, owner ('': no check), then
-- (name, amount) per sum that the job adds to.
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
-- The caller is not the worker and has read an older log: the worker is still writing.
if string.find(refusal.err, 'equal or smaller', 1, true) then return 0 end
return refusal
"""
)

PURGE: Final = (
    _END
    + """
-- Cancels jobs that no worker has taken yet. Returns one number per job: 1 cancelled now or earlier
-- by this purge, 0 skipped: it is not on the queue, or a worker has had it.
-- KEYS: queue, live jobs, index of expiries, totals, then (job, log, request, RQ's job) per job.
-- ARGV: reason, error code, ttl in s, then (job id, channel, line of the event 0-1) per job.
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
-- Notes a cancel request on a job that has not ended. Returns {'gone' or status, attempt, worker}.
-- KEYS: job. ARGV: reason.
local state = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'worker')
if not state[1] then return {'gone', '0', ''} end
if state[1] == 'queued' or state[1] == 'running' then
  redis.call('HSET', KEYS[1], 'cancel', ARGV[1])
end
return {state[1], state[2] or '0', state[3] or ''}
"""

FORGET: Final = """
-- Deletes a stored response with its job's log and request, and marks the job as deleted. While the
-- job has not ended its worker needs log and request: the end deletes them.
-- KEYS: job, log, request, stored response.
redis.call('DEL', KEYS[4])
local status = redis.call('HGET', KEYS[1], 'status')
if status then redis.call('HSET', KEYS[1], 'is_deleted', 1) end
if status ~= 'queued' and status ~= 'running' then redis.call('DEL', KEYS[2], KEYS[3]) end
return 1
"""

KEEP_ANSWER: Final = (
    f"local reserve = {RESERVE_S}"
    + """
-- Stores an answer unless the stored response is gone. Returns 1 if it is stored.
-- KEYS: stored response, index of the responses' expiries. ARGV: answer, ttl in s, id.
if redis.call('HEXISTS', KEYS[1], 'record') == 0 then return 0 end
redis.call('HSET', KEYS[1], 'answer', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2] + reserve)
redis.call('ZADD', KEYS[2], redis.call('TIME')[1] + ARGV[2], ARGV[3])
return 1
"""
)

RETIRE: Final = """
-- Removes a model that is not desired and has no waiting, taken or claimed jobs. Returns 1 if so.
-- KEYS: slugs, desired models, claims of the model, RQ's queues, held classes, used tokens, then
-- per queue of the model: the queue, its intermediate list, its wake list, callers with hints, RQ's
-- registries. ARGV: slug, ttl in s for the registries, number of queues.
local slug, num = ARGV[1], tonumber(ARGV[3])
local each = (#KEYS - 6) / num
if redis.call('HEXISTS', KEYS[2], slug) == 1 or redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
for i = 0, num - 1 do
  if redis.call('EXISTS', KEYS[7 + i * each], KEYS[8 + i * each]) > 0 then return 0 end
end
for i = 0, num - 1 do
  local hints = KEYS[10 + i * each]
  redis.call('SREM', KEYS[4], KEYS[7 + i * each])
  for _, caller in ipairs(redis.call('SMEMBERS', hints)) do
    redis.call('DEL', hints .. ':' .. caller)
  end
  redis.call('DEL', KEYS[9 + i * each], hints)
  for j = 11 + i * each, 6 + (i + 1) * each do redis.call('EXPIRE', KEYS[j], ARGV[2]) end
end
redis.call('DEL', KEYS[5], KEYS[6])
redis.call('SREM', KEYS[1], slug)
return 1
"""

FORGET_EXPIRED: Final = (
    f"local reserve = {RESERVE_S}"
    + """
-- Deletes what has expired. Returns how many ids it deleted.
-- A pause between two calls, in which the machine slept or no supervisor ran, does not count: all
-- expiries move by it, once, whoever calls first.
-- KEYS: time of the last call, two indexes of expiries (of jobs, of stored responses), then the
-- indexes that deleted ids leave. ARGV: maximum number per index, shortest pause in s, number of
-- prefixes of a job's keys, these prefixes, the prefix of stored responses.
local now = tonumber(redis.call('TIME')[1])
local pause = now - (tonumber(redis.call('GET', KEYS[1])) or now)
redis.call('SET', KEYS[1], now)
local num = 0
for i, prefixes in ipairs({{unpack(ARGV, 4, 3 + ARGV[3])}, {ARGV[#ARGV]}}) do
  local index = KEYS[1 + i]
  for _, id in ipairs(pause >= tonumber(ARGV[2]) and redis.call('ZRANGE', index, 0, -1) or {}) do
    local due = redis.call('ZINCRBY', index, pause, id)
    for _, prefix in ipairs(prefixes) do
      if redis.call('TTL', prefix .. id) >= 0 then
        redis.call('EXPIREAT', prefix .. id, math.floor(due + reserve))
      end
    end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', index, 0, now, 'LIMIT', 0, ARGV[1])) do
    for _, prefix in ipairs(prefixes) do redis.call('UNLINK', prefix .. id) end
    redis.call('ZREM', index, id)
    for j = 4, i == 1 and #KEYS or 3 do redis.call('ZREM', KEYS[j], id) end
    num = num + 1
  end
end
return num
"""
)
