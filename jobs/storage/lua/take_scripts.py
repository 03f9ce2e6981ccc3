"""Takes jobs from their queues. The script may be sent twice after a lost reply."""

from __future__ import annotations

from typing import Final

TAKE: Final = """
-- Moves the job that is next to the intermediate list, claims it for the worker, and returns {id,
-- number of jobs left on the queue, RQ's job}; nil if there is none, {} if all callers with waiting
-- jobs run as many as they may. RQ's job is empty if it is missing or its key has another type.
-- A take is refused if nobody would find its claim: another supervisor owns the model (an owner
-- searches for claims only once, at its start), the worker is marked as dead, or it has given this
-- take up (FIND_TAKEN).
-- Without a class the order is that of the list, and loads and unloads are taken only if named.
-- With one, entries without a hint go first if they head the list: they were put back. Then, of the
-- first job of each caller, the one of the lowest priority level, then that of the caller that has
-- used the least (VTC, arXiv 2401.00588), then the first hint. Waiting lowers a job's level to the
-- lowest at hand, so that nobody starves, and no further: who has waited long has no claim on more
-- than a share. The list is the truth: a hint that is not in it is dropped. No job is taken whose
-- caller runs as many as it may; those that other consumers may have taken count as its own.
-- KEYS: queue, its intermediate list, claims of the model, lock of its owner, take key of the
-- worker (first take number that is served), held classes, callers with hints, used tokens. ARGV:
-- worker, its owner, prefix of job records, 1 to take only named jobs, number of this take, class
-- ('': none), seconds per level of priority, 1 to be fair, number of jobs that other consumers may
-- have taken and that do not count as running yet, prefix of RQ's jobs, then four times a count and
-- as many: named jobs, ids already held, (field, tokens) used since the last take, (caller, number
-- of its running sequences).
local worker, prefix, class = ARGV[1], ARGV[3], ARGV[6]
local at = 11
local function section(width)
  local num, first = tonumber(ARGV[at]), at + 1
  at = first + num * width
  return first, at - 1
end
local meant, held, running = {}, {}, {}
local from, to = section(1)
for i = from, to do meant[ARGV[i]] = true end
from, to = section(1)
for i = from, to do held[ARGV[i]] = true end
from, to = section(2)
for i = from, to, 2 do redis.call('HINCRBYFLOAT', KEYS[8], ARGV[i], ARGV[i + 1]) end
from, to = section(2)
for i = from, to, 2 do running[ARGV[i]] = tonumber(ARGV[i + 1]) end
local owner, first = redis.call('GET', KEYS[4]), redis.call('GET', KEYS[5])
if owner and owner ~= ARGV[2] then return false end
if first and (first == 'dead' or tonumber(ARGV[5]) < tonumber(first)) then return false end
local function take(id)
  if redis.call('LREM', KEYS[1], 1, id) == 0 then return false end
  redis.call('RPUSH', KEYS[2], id)
  redis.call('SADD', KEYS[3], worker .. '|' .. id)
  local job = redis.pcall('HGETALL', ARGV[10] .. id)
  return {id, redis.call('LLEN', KEYS[1]), job.err and {} or job}
end
if class == '' then
  for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, 99)) do
    local is_open = false
    if not meant[id] and ARGV[4] ~= '1' then
      local task = redis.pcall('HGET', prefix .. id, 'task')
      is_open = task ~= 'mgs.load' and task ~= 'mgs.unload'
    end
    if (meant[id] or is_open) and not held[id] then return take(id) end
  end
  return false
end
if redis.call('HGET', KEYS[6], class) == 'hold' then return false end
local hints = KEYS[7]
local function field(id, name)
  local value = redis.pcall('HGET', prefix .. id, name)
  return type(value) == 'string' and value or ''
end
local function is_full(id, caller)
  local limit = tonumber(field(id, 'max_running')) or 0
  return limit > 0 and (running[caller] or 0) + tonumber(ARGV[9]) >= limit
end
local head
local is_held_back = false
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, 99)) do
  if not held[id] then
    local caller = field(id, 'caller')
    if redis.call('ZSCORE', hints .. ':' .. caller, id) then head = id break end
    if not is_full(id, caller) then return take(id) end
    is_held_back = true
  end
end
if not head then
  if is_held_back then return {} end
  if redis.call('EXISTS', KEYS[1]) == 0 then
    for _, caller in ipairs(redis.call('SMEMBERS', hints)) do
      redis.call('DEL', hints .. ':' .. caller)
    end
    redis.call('DEL', hints)
  end
  return false
end
local now = redis.call('TIME')
local seconds, aging = now[1] + now[2] / 1000000, tonumber(ARGV[7])
while true do
  local heads, lowest = {}, math.huge
  for _, caller in ipairs(redis.call('SMEMBERS', hints)) do
    local hint = hints .. ':' .. caller
    local found, skipped = redis.call('ZRANGE', hint, 0, 0, 'WITHSCORES'), 0
    while found[1] and held[found[1]] do
      skipped = skipped + 1
      found = redis.call('ZRANGE', hint, skipped, skipped, 'WITHSCORES')
    end
    if not found[1] then
      if skipped == 0 then redis.call('SREM', hints, caller) end
    else
      local id = found[1]
      if is_full(id, caller) then
        is_held_back = true
      else
        local priority = tonumber(field(id, 'priority')) or 0
        local waited = seconds - (tonumber(field(id, 'created_at')) or seconds)
        lowest = math.min(lowest, priority)
        heads[#heads + 1] = {id = id, caller = caller, score = tonumber(found[2]),
          level = priority, aged = priority - math.floor(waited / aging),
          used = tonumber(redis.call('HGET', KEYS[8], class .. ':' .. caller)) or 0}
      end
    end
  end
  local best
  for _, one in ipairs(heads) do
    one.level = math.max(lowest, math.min(one.level, one.aged))
    if ARGV[8] ~= '1' then one.level, one.used = 0, 0 end
    if not best or one.level < best.level or (one.level == best.level and (one.used < best.used
      or (one.used == best.used and one.score < best.score))) then best = one end
  end
  if not best then return is_held_back and {} or take(head) end
  redis.call('ZREM', hints .. ':' .. best.caller, best.id)
  if redis.call('EXISTS', hints .. ':' .. best.caller) == 0 then
    redis.call('SREM', hints, best.caller)
  end
  local taken = take(best.id)
  if taken then
    redis.call('HSET', KEYS[8], 'last:' .. class, best.caller)
    return taken
  end
end
"""
