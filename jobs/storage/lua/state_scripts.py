"""Atomic steps on desired models, nodes and totals, as Lua scripts for Redis 6.2."""

from __future__ import annotations

from typing import Final

SWAP_FIELD: Final = """
-- Sets a field by compare-and-set. Returns {1} if it has the new value, else {0, current}.
-- KEYS: hash. ARGV: field, expected value ('' = absent), new value ('' = delete).
local current = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if current == ARGV[3] then return {1} end
if current ~= ARGV[2] then return {0, current} end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1])
else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return {1}
"""

HEARTBEAT_NODE: Final = """
-- Writes a node's heartbeat and removes silent nodes from the index.
-- KEYS: the node's status, index of nodes. ARGV: uid, status, ttl in s of the status, age in s at
-- which a node leaves the index.
local now = redis.call('TIME')[1]
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], 0, now - ARGV[4])
return 1
"""

FOLD_FIELD: Final = """
-- Adds a field's number to another field and deletes it. Returns 1 if it existed.
-- KEYS: hash. ARGV: field, field to which it is added.
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
if tonumber(value) then redis.call('HINCRBYFLOAT', KEYS[1], ARGV[2], value) end
return 1
"""
