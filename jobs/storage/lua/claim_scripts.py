"""Claims of workers on taken jobs: open an attempt, return the job, hand it back.

Like those in ``job_scripts``, all may be sent twice after a lost reply.
"""

from __future__ import annotations

from typing import Final

FIND_TAKEN: Final = """
-- Returns all claims of the model. Earlier takes of the worker that arrive later take nothing.
-- KEYS: claims of the model, take key of the worker. ARGV: number of its next take, ttl in s.
if redis.call('GET', KEYS[2]) ~= 'dead' then redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2]) end
return redis.call('SMEMBERS', KEYS[1])
"""

OPEN_ATTEMPT: Final = """
-- Opens an attempt of the worker. From then on the log refuses all earlier attempts. A second call
-- of the same worker opens the same attempt.
-- Returns {'open', attempt, newest seq in the log, request, seconds queued, cancel reason, deaths,
-- seconds since the first attempt, class, caller, weight, yields, seconds until the deadline ('':
-- none), batch}; {'ended'}; or {'gone'}: the record is missing or unreadable, or the worker has no
-- claim (any more). A log or request of another type counts as empty; the worker reports that.
-- KEYS: job, log, request, claims of the model. ARGV: job id, worker name.
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
local order = redis.call('HMGET', KEYS[1], 'job_class', 'caller', 'weight', 'yields',
  'deadline_at', 'batch')
local left_s = tonumber(order[5]) and tostring(tonumber(order[5]) - seconds) or ''
return {'open', attempt, seq, request, queued_s, state[4] or '', tonumber(state[5]) or 0, ran_s,
  order[1] or '', order[2] or '', tostring(tonumber(order[3]) or 1), tonumber(order[4]) or 0,
  left_s, order[6] or ''}
"""

RETURN_TO_QUEUE: Final = """
-- Removes the claim of a dead worker and puts the job at the front of its queue, unless it has
-- ended or another worker has it. Returns 1 if it was put on the queue, 0 if not, -1 if ARGV[4]
-- does not own the model.
-- KEYS: job, intermediate list, queue, claims of the model, RQ's job, list that wakes the consumer,
-- lock of the model's owner. ARGV: job id, the dead worker, the job's field that counts its
-- death ('': none), owner ('': no check).
local id, worker = ARGV[1], ARGV[2]
if ARGV[4] ~= '' and redis.call('GET', KEYS[7]) ~= ARGV[4] then return -1 end
if redis.call('SREM', KEYS[4], worker .. '|' .. id) == 0 then return 0 end
local state = redis.pcall('HMGET', KEYS[1], 'status', 'worker')  -- another type counts as missing
if state[1] == 'running' and state[2] ~= worker then return 0 end
redis.call('LREM', KEYS[2], 1, id)
if state[1] ~= 'queued' and state[1] ~= 'running' then return 0 end
if ARGV[3] ~= '' and state[1] == 'running' then redis.call('HINCRBY', KEYS[1], ARGV[3], 1) end
redis.call('HSET', KEYS[1], 'status', 'queued', 'worker', '')
-- RQ's key may have another type. That must not stop the rest.
if redis.call('EXISTS', KEYS[5]) == 1 then redis.pcall('HSET', KEYS[5], 'status', 'queued') end
redis.call('LREM', KEYS[3], 0, id)
redis.call('LPUSH', KEYS[3], id)
redis.call('LPUSH', KEYS[6], '1')
redis.call('LTRIM', KEYS[6], 0, 0)
return 1
"""

YIELD: Final = """
-- Takes a running job back from its worker and puts it at the front of its queue, with what it has
-- said. It has no hint there, so it is taken first. Returns 1 if it is on its queue (now or
-- earlier), 0 if the worker does not run that attempt, or the reason of a cancel, which ends it.
-- KEYS: job, intermediate list, queue, claims of the model, RQ's job, list that wakes the consumer.
-- ARGV: job id, worker, attempt.
local id, worker = ARGV[1], ARGV[2]
local state = redis.call('HMGET', KEYS[1], 'status', 'worker', 'attempt', 'cancel')
if state[3] ~= ARGV[3] then return 0 end
if state[1] == 'queued' then return 1 end
if state[1] ~= 'running' or state[2] ~= worker then return 0 end
if state[4] and state[4] ~= '' then return state[4] end
redis.call('SREM', KEYS[4], worker .. '|' .. id)
redis.call('LREM', KEYS[2], 0, id)
redis.call('HSET', KEYS[1], 'status', 'queued', 'worker', '')
redis.call('HINCRBY', KEYS[1], 'yields', 1)
if redis.call('EXISTS', KEYS[5]) == 1 then redis.pcall('HSET', KEYS[5], 'status', 'queued') end
redis.call('LREM', KEYS[3], 0, id)
redis.call('LPUSH', KEYS[3], id)
redis.call('LPUSH', KEYS[6], '1')
redis.call('LTRIM', KEYS[6], 0, 0)
return 1
"""

STOP_TAKES: Final = """
-- Marks workers as dead, so that their delayed takes are refused. Returns 1, or -1 if ARGV[1] does
-- not own the model.
-- KEYS: lock of the model's owner, take keys of the workers. ARGV: owner ('': no check), ttl in s.
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
for i = 2, #KEYS do redis.call('SET', KEYS[i], 'dead', 'EX', ARGV[2]) end
return 1
"""

DROP_CLAIM: Final = """
-- Removes a claim. Returns 1 if it existed, 0 if not, -1 if ARGV[2] does not own the model.
-- KEYS: claims of the model, lock of its owner. ARGV: claim, owner ('': no check).
if ARGV[2] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[2] then return -1 end
return redis.call('SREM', KEYS[1], ARGV[1])
"""

RETURN_STRAY: Final = """
-- Puts a job that is in the intermediate list without a claim back at the front of its queue. One
-- that has ended is only removed from the list. Returns 1 if it was put on the queue.
-- KEYS: job, intermediate list, queue, claims of the model, list that wakes the consumer. ARGV: job
-- id.
local id = ARGV[1]
for _, member in ipairs(redis.call('SMEMBERS', KEYS[4])) do
  if string.sub(member, -#id - 1) == '|' .. id then return 0 end
end
local status = redis.pcall('HGET', KEYS[1], 'status')  -- another type counts as missing
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
-- Replaces the owner. Returns 1 if the new owner holds the lock now, with a new ttl, else 0.
-- KEYS: lock. ARGV: expected owner, new owner ('' = none), ttl in s.
local current = redis.call('GET', KEYS[1]) or ''
if current ~= ARGV[1] and current ~= ARGV[2] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
return 1
"""

ADOPT: Final = """
-- Gives a job whose API process is dead to another API process. Returns 1 if that one owns it now.
-- KEYS: job. ARGV: the API process, prefix of the API processes' heartbeats.
local former = redis.call('HGET', KEYS[1], 'owner') or ''
if former == '' or former == ARGV[1] or redis.call('EXISTS', ARGV[2] .. former) == 1 then
  return former == ARGV[1] and 1 or 0
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1])
return 1
"""
