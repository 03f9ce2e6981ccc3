"""Scripts for webhooks. ``QUEUE_EVENT`` is a fragment of the scripts that change a status.

An event is queued in the same step as the change that it tells of, so none is lost and none is told
that did not happen. Its id is derived from the object and the type, so a repeated call changes
nothing.
"""

from __future__ import annotations

from typing import Final

from jobs.storage import object_names

KEEP_S: Final = 10 * 86400
"""A delivery is kept for this long: three days of attempts, and some to look at it."""
MAX_LOG: Final = 1000
"""Deliveries that are kept per endpoint; pending ones beyond that, up to ``MAX_PENDING``."""
MAX_PENDING: Final = 10_000
MAX_ENDPOINTS: Final = 20
"""Endpoints per caller."""
_MAX_TRIES_CHARS: Final = 4000

_NAMES: Final = f"""
local hook_prefix, hooks_of = '{object_names.hook_key("")}', '{object_names.hooks_key("")}'
local hooks_due, hooks_wake = '{object_names.HOOKS_DUE}', '{object_names.HOOKS_WAKE}'
local hooks_totals = '{object_names.HOOKS_TOTALS}'
local keep_s, max_log, max_pending = {KEEP_S}, {MAX_LOG}, {MAX_PENDING}
"""

_SHARED: Final = (
    _NAMES
    + """
local function clock()
  local now = redis.call('TIME')
  return now[1] .. '.' .. string.format('%06d', now[2])
end
-- Counts deliveries for /metrics. A key of another type must not stop them.
local function count(what) redis.pcall('HINCRBY', hooks_totals, what, 1) end
-- Enters when the endpoint's next delivery is due.
local function note_due(hook)
  local first = redis.call('ZRANGE', hook_prefix .. hook .. ':due', 0, 0, 'WITHSCORES')
  if first[1] then redis.call('ZADD', hooks_due, first[2], hook)
  else redis.call('ZREM', hooks_due, hook) end
end
local function make_due(hook, event, at)
  redis.call('ZADD', hook_prefix .. hook .. ':due', at, event)
  note_due(hook)
  redis.call('LPUSH', hooks_wake, '1')
  redis.call('LTRIM', hooks_wake, 0, 0)
end
-- Removes old deliveries beyond the limits: settled ones first.
local function trim(hook)
  local key = hook_prefix .. hook
  local log, due = key .. ':log', key .. ':due'
  local excess = redis.call('ZCARD', log) - max_log
  if excess <= 0 then return end
  for _, event in ipairs(redis.call('ZRANGE', log, 0, 15)) do
    local is_pending = redis.call('ZSCORE', due, event)
    if excess > 0 and (not is_pending or excess > max_pending - max_log) then
      redis.call('ZREM', log, event)
      redis.call('DEL', key .. ':event:' .. event)
      excess = excess - 1
      if is_pending then
        redis.call('ZREM', due, event)
        redis.call('HINCRBY', key, 'num_dropped', 1)
        count('dropped')
      end
    end
  end
end
local function queue_delivery(hook, event, kind, body, at)
  local key = hook_prefix .. hook
  local delivery = key .. ':event:' .. event
  if redis.call('EXISTS', delivery) == 1 then return end
  redis.call('HSET', delivery, 'type', kind, 'body', body, 'status', 'pending',
    'created_at', at, 'first_at', at)
  redis.call('EXPIRE', delivery, keep_s)
  redis.call('ZADD', key .. ':log', at, event)
  redis.call('EXPIRE', key .. ':log', keep_s)
  make_due(hook, event, at)
  trim(hook)
end
"""
)

QUEUE_EVENT: Final = (
    _SHARED
    + """
-- Queues an event for each endpoint of the caller that wants its type. An error in here is logged
-- and must not undo the change that the event tells of.
local function queue_event(caller, kind, object_id)
  local is_done, problem = pcall(function()
    local hooks = redis.call('ZRANGE', hooks_of .. caller, 0, -1)
    if #hooks == 0 then return end
    local at = clock()
    local event = 'evt_' .. object_id .. '_' .. string.gsub(kind, '%.', '_')
    local body = '{"id":"' .. event .. '","object":"event","created_at":'
      .. string.match(at, '^%d+') .. ',"type":"' .. kind .. '","data":{"id":"' .. object_id .. '"}}'
    for _, hook in ipairs(hooks) do
      local about = redis.pcall('HMGET', hook_prefix .. hook, 'status', 'event_types')
      if about[1] == 'enabled' and about[2]
        and string.find(about[2], ' ' .. kind .. ' ', 1, true) then
        queue_delivery(hook, event, kind, body, at)
      end
    end
  end)
  if not is_done then redis.log(redis.LOG_WARNING, 'no webhook: ' .. tostring(problem)) end
end
-- The events of the end of a background job. A response that reached its token limit is incomplete:
-- its last chunk says so.
local function queue_job_events(caller, log, job_id, status)
  if redis.call('EXISTS', hooks_of .. caller) == 0 then return end
  queue_event(caller, 'job.' .. status, job_id)
  if string.sub(job_id, 1, 5) ~= 'resp_' then return end
  local ending = status == 'finished' and 'completed' or status
  if status == 'finished' then
    for _, entry in ipairs(redis.pcall('XREVRANGE', log, '+', '-', 'COUNT', 8)) do
      if string.find(entry[2][2] or '', '"finish_reason":"length"', 1, true) then
        ending = 'incomplete'
      end
    end
  end
  queue_event(caller, 'response.' .. ending, job_id)
end
"""
)

QUEUE: Final = (
    QUEUE_EVENT
    + """
-- Queues an event by itself. ARGV: caller, type, object id.
queue_event(ARGV[1], ARGV[2], ARGV[3])
return 1
"""
)

CREATE: Final = (
    f"local max_endpoints = {MAX_ENDPOINTS}"
    + _NAMES
    + """
-- Stores a new endpoint. Returns 1, or 0 if the caller has too many. KEYS: the caller's endpoints,
-- endpoint. ARGV: its id, time, then its fields and values.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 1 end
if redis.call('ZCARD', KEYS[1]) >= max_endpoints then return 0 end
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
"""
)

CHANGE: Final = (
    _SHARED
    + """
-- Changes fields of an endpoint. One that is disabled gives its pending deliveries up. Returns 1,
-- or 0 if there is none. KEYS: endpoint. ARGV: its id, then fields and values.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
if redis.call('HGET', KEYS[1], 'status') == 'disabled' then
  for _, event in ipairs(redis.call('ZRANGE', KEYS[1] .. ':due', 0, -1)) do
    local delivery = KEYS[1] .. ':event:' .. event
    if redis.call('EXISTS', delivery) == 1 then
      redis.call('HSET', delivery, 'status', 'failed')
      count('failed')
    end
  end
  redis.call('DEL', KEYS[1] .. ':due')
  note_due(ARGV[1])
end
return 1
"""
)

DELETE: Final = (
    _NAMES
    + """
-- Deletes an endpoint and its deliveries. Returns 1 if it existed. KEYS: the caller's endpoints,
-- endpoint. ARGV: its id.
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
for _, event in ipairs(redis.call('ZRANGE', KEYS[2] .. ':log', 0, -1)) do
  redis.call('UNLINK', KEYS[2] .. ':event:' .. event)
end
redis.call('UNLINK', KEYS[2], KEYS[2] .. ':log', KEYS[2] .. ':due')
redis.call('ZREM', hooks_due, ARGV[1])
return 1
"""
)

RESEND: Final = (
    _SHARED
    + """
-- Makes a delivery due now, as if it had never been tried. Returns 1, 0 if there is none.
-- KEYS: delivery. ARGV: endpoint id, event id.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local at = clock()
redis.call('HSET', KEYS[1], 'status', 'pending', 'attempts', 0, 'first_at', at, 'lease', '')
redis.call('EXPIRE', KEYS[1], keep_s)
make_due(ARGV[1], ARGV[2], at)
return 1
"""
)

TAKE: Final = (
    _SHARED
    + """
-- Leases due deliveries of one endpoint. Returns {1, now, endpoint, url, may be private, secret,
-- another one or '', then (event, body, attempts, time of the first) per delivery}, or {0, seconds
-- until the next one is due or -1}. A lease that runs out is a delivery that is due again.
-- ARGV: lease, its seconds, most deliveries, then the endpoints that are busy.
local at = clock()
local now, busy = tonumber(at), {}
for i = 4, #ARGV do busy[ARGV[i]] = true end
for _, hook in ipairs(redis.call('ZRANGEBYSCORE', hooks_due, '-inf', now)) do
  if not busy[hook] then
    local key = hook_prefix .. hook
    local about = redis.pcall('HMGET', key, 'status', 'url', 'is_private_allowed', 'secret',
      'old_secret', 'old_secret_until')
    if about[1] ~= 'enabled' then
      redis.call('ZREM', hooks_due, hook)
    else
      local old = now < (tonumber(about[6]) or 0) and about[5] or ''
      local found = {1, at, hook, about[2], about[3], about[4], old}
      local due = redis.call('ZRANGEBYSCORE', key .. ':due', '-inf', now, 'LIMIT', 0, ARGV[3])
      for _, event in ipairs(due) do
        local delivery = key .. ':event:' .. event
        local it = redis.pcall('HMGET', delivery, 'body', 'attempts', 'first_at')
        if it[1] then
          redis.call('HSET', delivery, 'lease', ARGV[1])
          redis.call('ZADD', key .. ':due', now + ARGV[2], event)
          for _, part in ipairs({event, it[1], it[2] or '0', it[3] or at}) do
            found[#found + 1] = part
          end
        else
          redis.call('ZREM', key .. ':due', event)
        end
      end
      note_due(hook)
      if #found > 7 then return found end
    end
  end
end
for _, hook in ipairs(redis.call('ZRANGEBYSCORE', hooks_due, '(' .. at, '+inf', 'LIMIT', 0, 1)) do
  return {0, tostring(math.max(redis.call('ZSCORE', hooks_due, hook) - now, 0))}
end
return {0, '-1'}
"""
)

SETTLE: Final = (
    f"local max_tries_chars = {_MAX_TRIES_CHARS}"
    + _SHARED
    + """
-- Writes how an attempt ended. One whose lease was taken over counts only if it was a success.
-- Returns 1 if it counts. KEYS: delivery. ARGV: endpoint id, event id, lease, 'delivered',
-- 'failed', or the seconds until the next attempt; the attempt as JSON.
local due = hook_prefix .. ARGV[1] .. ':due'
local state = redis.call('HMGET', KEYS[1], 'status', 'lease', 'tries')
if not state[1] then redis.call('ZREM', due, ARGV[2]) return 0 end
if ARGV[4] ~= 'delivered' and (state[1] ~= 'pending' or state[2] ~= ARGV[3]) then return 0 end
local tries = state[3] or ''
tries = (tries == '' or #tries > max_tries_chars) and ARGV[5] or tries .. ',' .. ARGV[5]
redis.call('HSET', KEYS[1], 'tries', tries, 'lease', '')
redis.call('HINCRBY', KEYS[1], 'attempts', 1)
if ARGV[4] == 'delivered' or ARGV[4] == 'failed' then
  if state[1] ~= ARGV[4] then count(ARGV[4]) end
  redis.call('HSET', KEYS[1], 'status', ARGV[4])
  redis.call('ZREM', due, ARGV[2])
else
  count('retried')
  redis.call('ZADD', due, tonumber(clock()) + ARGV[4], ARGV[2])
end
note_due(ARGV[1])
return 1
"""
)
