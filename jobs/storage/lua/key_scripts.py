"""What API keys use: counted where jobs are submitted and where they end (docs/keys.md)."""

from __future__ import annotations

from typing import Final

from jobs.storage import object_names

KEPT_S: Final = 90 * 86400
"""How long the use of a day is known."""
MAX_FIELDS: Final = 6000
"""Of a day: beyond, new models are counted as ``OTHER``."""
OTHER: Final = "(other)"
_RATE_TTL_S = 120

COUNT_REQUEST: Final = (
    f"local ttl = {_RATE_TTL_S}"
    + """
-- Counts a request in this minute, with the tokens that it may take, unless one of the limits is
-- reached. The first request of a minute may take more than its tokens. Returns {1 if it was
-- counted, requests and tokens of the minute, milliseconds until its end}.
-- KEYS: the caller's minutes, without the minute. ARGV: requests per minute (0: no limit), tokens
-- per minute, tokens.
local now = redis.call('TIME')
local key = KEYS[1] .. ':' .. math.floor(now[1] / 60)
local rpm, tpm, more = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local used = redis.call('HMGET', key, 'requests', 'tokens')
local requests, tokens = tonumber(used[1]) or 0, tonumber(used[2]) or 0
local is_counted = (rpm == 0 or requests < rpm)
  and (tpm == 0 or tokens <= 0 or tokens + more <= tpm)
if is_counted then
  requests = redis.call('HINCRBY', key, 'requests', 1)
  tokens = redis.call('HINCRBY', key, 'tokens', more)
  redis.call('EXPIRE', key, ttl)
end
local left_ms = (60 - now[1] % 60) * 1000 - math.floor(now[2] / 1000)
return {is_counted and 1 or 0, requests, tokens, left_ms}
"""
)

COUNT_USE: Final = (
    f"local usage, rate = '{object_names.USAGE}', '{object_names.rate_key('')}'\n"
    f"local kept_s = {KEPT_S + 86400}\n"
    f"local max_fields, other, rate_ttl = {MAX_FIELDS}, '{OTHER}', {_RATE_TTL_S}"
    + """
-- Counts an ended job for its caller: its end and its tokens, for the day and model, and of a key
-- since ever.
-- Of its tokens per minute, some were counted before it ran: the rest is added now. What it has not
-- used is given back within the same minute.
local function count_use(job, caller, status, amounts, now)
  local about = redis.call('HMGET', job, 'model', 'reserved_tokens', 'created_at')
  if not about[1] then return end  -- a load or the like, which is no use of a model
  local of_day, num_tokens = usage .. ':' .. math.floor(now[1] / 86400), 0
  local is_full = redis.call('HLEN', of_day) >= max_fields
  local function add(name, amount)
    local total = name .. ' ' .. caller
    if caller ~= '' then redis.call('HINCRBY', usage, total, amount) end
    local field = total .. ' ' .. about[1]
    if is_full and redis.call('HEXISTS', of_day, field) == 0 then field = total .. ' ' .. other end
    redis.call('HINCRBY', of_day, field, amount)
  end
  add(status, 1)
  for i = 1, #amounts, 2 do
    local name = amounts[i]
    if string.sub(name, -7) == '_tokens' then add(name, amounts[i + 1]) end
    if name == 'prompt_tokens' or name == 'generated_tokens' then
      num_tokens = num_tokens + tonumber(amounts[i + 1])
    end
  end
  redis.call('EXPIRE', of_day, kept_s)
  local reserved = tonumber(about[2])
  if not reserved then return end
  local minute, more = math.floor(now[1] / 60), num_tokens - reserved
  if more > 0 or math.floor((tonumber(about[3]) or 0) / 60) == minute then
    local key = rate .. caller .. ':' .. minute
    redis.call('HINCRBY', key, 'tokens', more)
    redis.call('EXPIRE', key, rate_ttl)
  end
end
"""
)
