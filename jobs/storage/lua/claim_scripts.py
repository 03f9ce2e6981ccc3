"""Who has a job in hand: taking it from its queue, opening an attempt, giving it back.

As in ``job_scripts``, each may be sent twice after a lost reply.
"""

from __future__ import annotations

from typing import Final

TAKE: Final = """
-- KEYS: queue, RQ's intermediate list of it, claims of the model, lock of its owner, from which
-- take on the worker is answered. ARGV: worker, its owner, prefix of the jobs' records, 1 if only
-- the jobs named may be taken, number of this take, number of ids that follow: of the loads and
-- unloads meant for it; then the ids that it has in hand. Answers the id of the first job that it
-- may take, or nil. The job is moved to the intermediate list, and claimed. Nothing for a worker
-- whose model has another owner, who looks for claims once, when it begins; nor for one that is
-- dead by now, or has given this take up: nobody would look for the claim.
local owner, first = redis.call('GET', KEYS[4]), redis.call('GET', KEYS[5])
if owner and owner ~= ARGV[2] then return false end
if first and (first == 'dead' or tonumber(ARGV[5]) < tonumber(first)) then return false end
local meant, held = {}, {}
local last = 6 + tonumber(ARGV[6])
for i = 7, last do meant[ARGV[i]] = true end
for i = last + 1, #ARGV do held[ARGV[i]] = true end
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, 99)) do
  local is_open = false
  if not meant[id] and ARGV[4] ~= '1' then
    local task = redis.pcall('HGET', ARGV[3] .. id, 'task')
    is_open = task ~= 'mgs.load' and task ~= 'mgs.unload'
  end
  if (meant[id] or is_open) and not held[id] then
    redis.call('LREM', KEYS[1], 1, id)
    redis.call('RPUSH', KEYS[2], id)
    redis.call('SADD', KEYS[3], ARGV[1] .. '|' .. id)
    return id
  end
end
return false
"""

FIND_TAKEN: Final = """
-- KEYS: claims of the model, from which take on the worker is answered. ARGV: number of its next
-- take, ttl in s. Answers all claims. Takes of the worker that are still under way take nothing.
if redis.call('GET', KEYS[2]) ~= 'dead' then redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2]) end
return redis.call('SMEMBERS', KEYS[1])
"""

OPEN_ATTEMPT: Final = """
-- KEYS: job, log, request, claims of the model. ARGV: job id, worker name.
-- Answers {'open', attempt, newest seq in the log, request, seconds queued, reason of a cancel,
-- deaths, seconds since its first attempt}, or {'gone'} (no record, none that can be read, or no
-- claim of this worker: the job was taken from it) or {'ended'}. From here on the log refuses every
-- earlier attempt. Once more by the same worker, it is the same attempt.
-- A log or a request of no use is empty: who opens it tells that.
if redis.call('SISMEMBER', KEYS[4], ARGV[2] .. '|' .. ARGV[1]) == 0 then return {'gone'} end
local state = redis.pcall('HMGET', KEYS[1], 'status', 'attempt', 'created_at', 'cancel', 'deaths',
  'worker')
local status, created_at = state[1], tonumber(state[3])
if not status or not created_at or not tonumber(state[2] or '0') then return {'gone'} end
if status ~= 'queued' and status ~= 'running' then return {'ended'} end
local now = redis.call('TIME')
local attempt = tonumber(state[2] or '0')
if status ~= 'running' or state[6] ~= ARGV[2] then
  attempt = redis.call('HINCRBY', KEYS[1], 'attempt', 1)
  redis.call('HSET', KEYS[1], 'status', 'running', 'worker', ARGV[2])
end
redis.call('HSETNX', KEYS[1], 'started_at', now[1] .. '.' .. string.format('%06d', now[2]))
local seq = 0
local newest = redis.pcall('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if newest[1] then seq = tonumber(string.match(newest[1][1], '-(%d+)$')) end
local seconds = now[1] + now[2] / 1000000
local queued_s = tostring(seconds - created_at)
local ran_s = tostring(seconds - (tonumber(redis.call('HGET', KEYS[1], 'started_at')) or seconds))
local request = redis.pcall('GET', KEYS[3])
if type(request) ~= 'string' then request = '' end
return {'open', attempt, seq, request, queued_s, state[4] or '', tonumber(state[5]) or 0, ran_s}
"""

RETURN_TO_QUEUE: Final = """
-- KEYS: job, intermediate list, queue, claims of the model, RQ's job, list that wakes the consumer,
-- lock of the model's owner. ARGV: job id, worker that held it, 1 to count that worker's death,
-- owner ('': anybody). Takes a job from a worker that is gone, and puts it at the front of its
-- queue unless it has ended or another worker has it. Answers 1 if it is on the queue by this, -1
-- for who is not the owner.
local id, worker = ARGV[1], ARGV[2]
if ARGV[4] ~= '' and redis.call('GET', KEYS[7]) ~= ARGV[4] then return -1 end
if redis.call('SREM', KEYS[4], worker .. '|' .. id) == 0 then return 0 end
local state = redis.pcall('HMGET', KEYS[1], 'status', 'worker')  -- a record of no use is none
if state[1] == 'running' and state[2] ~= worker then return 0 end
redis.call('LREM', KEYS[2], 1, id)
if state[1] ~= 'queued' and state[1] ~= 'running' then return 0 end
if ARGV[3] == '1' and state[1] == 'running' then redis.call('HINCRBY', KEYS[1], 'deaths', 1) end
redis.call('HSET', KEYS[1], 'status', 'queued', 'worker', '')
-- RQ's job may be none: the rest has to be done all the same.
if redis.call('EXISTS', KEYS[5]) == 1 then redis.pcall('HSET', KEYS[5], 'status', 'queued') end
redis.call('LREM', KEYS[3], 0, id)
redis.call('LPUSH', KEYS[3], id)
redis.call('LPUSH', KEYS[6], '1')
redis.call('LTRIM', KEYS[6], 0, 0)
return 1
"""

STOP_TAKES: Final = """
-- KEYS: lock of the model's owner, then per worker from which of its takes on it is answered. ARGV:
-- owner ('': anybody), ttl in s. Dead workers are given nothing any more. Answers 1, or -1 for who
-- is not the owner.
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
for i = 2, #KEYS do redis.call('SET', KEYS[i], 'dead', 'EX', ARGV[2]) end
return 1
"""

DROP_CLAIM: Final = """
-- KEYS: claims of the model, lock of its owner. ARGV: claim, owner ('': anybody). Answers 1 if it
-- was there, -1 for who is not the owner.
if ARGV[2] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[2] then return -1 end
return redis.call('SREM', KEYS[1], ARGV[1])
"""

RETURN_STRAY: Final = """
-- KEYS: job, intermediate list, queue, claims of the model, list that wakes the consumer. ARGV: job
-- id. Puts a job of ours that lies in the intermediate list without anybody's claim back to the
-- front of its queue, or takes one that has ended off that list. Answers 1 if it is on the queue by
-- this.
local id = ARGV[1]
for _, member in ipairs(redis.call('SMEMBERS', KEYS[4])) do
  if string.sub(member, -#id - 1) == '|' .. id then return 0 end
end
local status = redis.pcall('HGET', KEYS[1], 'status')  -- a record of no use is none
if type(status) ~= 'string' or redis.call('LREM', KEYS[2], 0, id) == 0 then return 0 end
if status ~= 'queued' and status ~= 'running' then return 0 end
redis.call('HSET', KEYS[1], 'status', 'queued', 'worker', '')
redis.call('LREM', KEYS[3], 0, id)
redis.call('LPUSH', KEYS[3], id)
redis.call('LPUSH', KEYS[5], '1')
redis.call('LTRIM', KEYS[5], 0, 0)
return 1
"""

REPLACE_OWNER: Final = """
-- KEYS: lock. ARGV: owner expected and new owner ('' = none), ttl in s. Answers 1 when replaced,
-- and when the new owner has it already: then its time begins anew.
local current = redis.call('GET', KEYS[1]) or ''
if current ~= ARGV[1] and current ~= ARGV[2] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
return 1
"""

ADOPT: Final = """
-- KEYS: job. ARGV: API process that has a reader of it, prefix of the API processes' heartbeats.
-- A job whose API process is gone becomes that one's. Answers 1 if it is.
local former = redis.call('HGET', KEYS[1], 'owner') or ''
if former == '' or former == ARGV[1] or redis.call('EXISTS', ARGV[2] .. former) == 1 then
  return former == ARGV[1] and 1 or 0
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1])
return 1
"""
