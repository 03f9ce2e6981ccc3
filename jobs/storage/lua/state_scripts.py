"""Atomic steps around the jobs: desired models, nodes, totals. Lua scripts for Redis 6.2."""

from __future__ import annotations

from typing import Final

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

HEARTBEAT_NODE: Final = """
-- KEYS: the node's status, index of nodes. ARGV: uid, status, ttl in s of the status, for how long
-- in s the index remembers a silent node.
local now = redis.call('TIME')[1]
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], 0, now - ARGV[4])
return 1
"""

FOLD_FIELD: Final = """
-- KEYS: hash of numbers. ARGV: field, field to which it is added. Answers 1 if it was there.
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
if tonumber(value) then redis.call('HINCRBYFLOAT', KEYS[1], ARGV[2], value) end
return 1
"""
