"""Atomic steps on batches. Each script is idempotent, so it may be sent twice."""

from __future__ import annotations

from typing import Final

from jobs.storage.lua import webhook_scripts

PUT_BATCH: Final = """
-- Writes a batch, unless Redis has it already. Returns 1 if it was written.
-- KEYS: batch, all batches, those of the caller, those that have not ended. ARGV: id, status,
-- record, 1 if it has not ended, channel that wakes the runners.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'record', ARGV[3])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
if ARGV[4] == '1' then
  redis.call('SADD', KEYS[4], ARGV[1])
  redis.call('PUBLISH', ARGV[5], '')
end
return 1
"""

BATCH_SET: Final = (
    webhook_scripts.QUEUE_EVENT
    + """
-- Replaces status and record of a batch. Returns 'done' (now or earlier), 'gone', 'lease' when
-- ARGV[6] does not work on it any more, or the status that forbids the change.
-- KEYS: batch, its lease, those that have not ended. ARGV: id, status, record, the statuses that it
-- may have, comma separated, 1 if it has not ended, lease ('': no check), 1 to wake the runners,
-- the type of the event that tells of it ('': none), the caller, channel that wakes the runners.
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return 'gone' end
if ARGV[6] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[6] then return 'lease' end
local is_same = status == ARGV[2] and redis.call('HGET', KEYS[1], 'record') == ARGV[3]
if is_same then return 'done' end
if not string.find(',' .. ARGV[4] .. ',', ',' .. status .. ',', 1, true) then return status end
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'record', ARGV[3])
if ARGV[5] == '1' then redis.call('SADD', KEYS[3], ARGV[1])
else redis.call('SREM', KEYS[3], ARGV[1]) end
if ARGV[7] == '1' then redis.call('PUBLISH', ARGV[10], '') end
if ARGV[8] ~= '' then queue_event(ARGV[9], ARGV[8], ARGV[1]) end
return 'done'
"""
)

LEASE_BATCH: Final = """
-- Takes or renews the lease of a batch. Returns {lease, status}; the lease is '' if another process
-- works on the batch, the status '' if Redis has no such batch.
-- A process of the same machine that has locked the batch's folder knows that its former owner on
-- this machine is dead, and does not wait for the lease's end.
-- KEYS: lease, batch. ARGV: machine, process, ttl in ms.
local held, mine = redis.call('GET', KEYS[1]), ARGV[1] .. '|' .. ARGV[2] .. '|'
local status = redis.call('HGET', KEYS[2], 'status')
if not status then return {'', ''} end
if held and string.sub(held, 1, #mine) == mine then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {held, status}
end
if held and string.sub(held, 1, #ARGV[1] + 1) ~= ARGV[1] .. '|' then return {'', status} end
local lease = mine .. redis.call('HINCRBY', KEYS[2], 'epoch', 1)
redis.call('SET', KEYS[1], lease, 'PX', ARGV[3])
return {lease, status}
"""

RELEASE_BATCH: Final = """
-- Gives a lease up, if it is still that one. Returns 1. KEYS: lease. ARGV: the lease.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""

FORGET_BATCH: Final = """
-- Removes all of a batch that has ended. Returns 1.
-- KEYS: batch, its lease, all batches, those of the caller, those that have not ended. ARGV: id.
redis.call('DEL', KEYS[1], KEYS[2])
for i = 3, 5 do redis.call(i == 5 and 'SREM' or 'ZREM', KEYS[i], ARGV[1]) end
return 1
"""

FORGET_LINES: Final = """
-- Deletes the jobs of lines that have ended. Returns one number per job: 1 deleted, 0 to be asked
-- for again, because it has not ended or a worker has not released it yet and would write to what
-- is deleted. A job that ended between its take and its start has a claim, and names no worker.
-- KEYS: index of the expiries of jobs, claims of the model, then its queue, that queue's
-- intermediate list and RQ's registries, then (job, request, log, RQ's job, RQ's results, RQ's
-- executions) per job. ARGV: number of registries, number of jobs, the job ids.
local num_registries, num = tonumber(ARGV[1]), tonumber(ARGV[2])
local answers, first, claimed = {}, 4 + num_registries, {}
for _, claim in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local _, last = string.find(claim, '|', 1, true)
  if last then claimed[string.sub(claim, last + 1)] = true end
end
for i = 1, num do
  local id, at = ARGV[2 + i], first + 6 * (i - 1)
  local status = redis.call('HGET', KEYS[at + 1], 'status')
  local is_kept = status == 'queued' or status == 'running' or claimed[id]
  answers[i] = is_kept and 0 or 1
  if not is_kept then
    redis.call('UNLINK', unpack(KEYS, at + 1, at + 6))
    redis.call('ZREM', KEYS[1], id)
    for j = 3, 4 do redis.call('LREM', KEYS[j], 0, id) end
    for j = 5, first do redis.call('ZREM', KEYS[j], id) end
  end
end
return answers
"""
