"""The emulated Redis gives the same replies as a real one, and has the same content."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from tests.explorer.commands import ReplyError
from tests.explorer.differential import DifferentialRedis

KEYS = ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"]
WORDS = ["a", "b", "c", "7", "-3", "2.5", ""]


@pytest.fixture
def servers(redis_url: str) -> Iterator[DifferentialRedis]:
    found = DifferentialRedis(redis_url)
    yield found
    found.close()


def _some(draw: random.Random, most: int = 3) -> list[str]:
    return [draw.choice(WORDS) for _ in range(draw.randint(1, most))]


def _num(draw: random.Random) -> int:
    return draw.randint(-4, 4)


def _stream_id(draw: random.Random) -> str:
    return f"{draw.randint(0, 4)}-{draw.randint(1, 5)}"


def _bound(draw: random.Random) -> str:
    return draw.choice(["-inf", "+inf", "0", "(1", "2", "(2.5", "3", "x"])


def _span(draw: random.Random) -> tuple[str, str]:
    low = draw.choice(["-", _stream_id(draw), f"({_stream_id(draw)}", "2"])
    return low, draw.choice(["+", _stream_id(draw), f"({_stream_id(draw)}", "3"])


Make = Callable[[random.Random, str, str], list[object]]
Options = list[list[object]]
SET_OPTIONS: Options = [[], ["EX", 500], ["NX"], ["XX"], ["KEEPTTL"], ["PX", "900000", "NX"]]
SET_OPTIONS += [["GET"], ["EX"]]
SCORES = [1, 2, 2.5, "x"]
ADD_OPTIONS: Options = [[], ["NX"], ["XX"], ["CH"]]
RANGE_OPTIONS: Options = [[], ["WITHSCORES"], ["LIMIT", 1, 2], ["LIMIT", 0, -1]]
COMMANDS: dict[str, Make] = {
    "EXISTS": lambda d, k, o: [k, o, k],
    "DEL": lambda d, k, o: [k, o],
    "EXPIRE": lambda d, k, o: [k, d.choice([100, 3000, 0, "x"])],
    "PERSIST": lambda d, k, o: [k],
    "GET": lambda d, k, o: [k],
    "MGET": lambda d, k, o: [k, o],
    "SET": lambda d, k, o: [k, d.choice(WORDS), *d.choice(SET_OPTIONS)],
    "INCR": lambda d, k, o: [k],
    "HGET": lambda d, k, o: [k, d.choice(WORDS)],
    "HMGET": lambda d, k, o: [k, *_some(d)],
    "HGETALL": lambda d, k, o: [k],
    "HEXISTS": lambda d, k, o: [k, d.choice(WORDS)],
    "HLEN": lambda d, k, o: [k],
    "HKEYS": lambda d, k, o: [k],
    "HSET": lambda d, k, o: [k, *_some(d, 4)],
    "HSETNX": lambda d, k, o: [k, d.choice(WORDS), d.choice(WORDS)],
    "HDEL": lambda d, k, o: [k, *_some(d)],
    "HINCRBY": lambda d, k, o: [k, d.choice(WORDS), d.choice([1, -2, "x"])],
    "HINCRBYFLOAT": lambda d, k, o: [k, d.choice(WORDS), d.choice(["0.5", "3", "x"])],
    "LLEN": lambda d, k, o: [k],
    "LRANGE": lambda d, k, o: [k, _num(d), _num(d)],
    "LINDEX": lambda d, k, o: [k, _num(d)],
    "LPOS": lambda d, k, o: [k, d.choice(WORDS)],
    "LPUSH": lambda d, k, o: [k, *_some(d)],
    "RPUSH": lambda d, k, o: [k, *_some(d)],
    "LPOP": lambda d, k, o: [k, *d.choice([[], [2]])],
    "RPOP": lambda d, k, o: [k, *d.choice([[], [2]])],
    "LREM": lambda d, k, o: [k, _num(d), d.choice(WORDS)],
    "LTRIM": lambda d, k, o: [k, _num(d), _num(d)],
    "LMOVE": lambda d, k, o: [k, o, d.choice(["LEFT", "RIGHT"]), d.choice(["LEFT", "RIGHT"])],
    "SADD": lambda d, k, o: [k, *_some(d)],
    "SREM": lambda d, k, o: [k, *_some(d)],
    "SMEMBERS": lambda d, k, o: [k],
    "SUNION": lambda d, k, o: [k, o],
    "SISMEMBER": lambda d, k, o: [k, d.choice(WORDS)],
    "SCARD": lambda d, k, o: [k],
    "ZADD": lambda d, k, o: [k, *d.choice(ADD_OPTIONS), d.choice(SCORES), d.choice(WORDS)],
    "ZREM": lambda d, k, o: [k, *_some(d)],
    "ZCARD": lambda d, k, o: [k],
    "ZSCORE": lambda d, k, o: [k, d.choice(WORDS)],
    "ZCOUNT": lambda d, k, o: [k, _bound(d), _bound(d)],
    "ZRANGE": lambda d, k, o: [k, _num(d), _num(d), *d.choice([[], ["WITHSCORES"]])],
    "ZRANGEBYSCORE": lambda d, k, o: [k, _bound(d), _bound(d), *d.choice(RANGE_OPTIONS)],
    "ZREVRANGEBYSCORE": lambda d, k, o: [k, _bound(d), _bound(d), *d.choice(RANGE_OPTIONS)],
    "ZREMRANGEBYSCORE": lambda d, k, o: [k, _bound(d), _bound(d)],
    "XADD": lambda d, k, o: [k, _stream_id(d), "e", d.choice(WORDS)],
    "XLEN": lambda d, k, o: [k],
    "XRANGE": lambda d, k, o: [k, *_span(d), *d.choice([[], ["COUNT", 2]])],
    "XREVRANGE": lambda d, k, o: [k, *reversed(_span(d)), *d.choice([[], ["COUNT", 1]])],
    "PUBLISH": lambda d, k, o: [k, "x"],
}  # fmt: skip


def _random_command(draw: random.Random) -> list[object]:
    """Mostly a command of the key's type."""
    name = draw.choice(list(COMMANDS))
    index = sum(map(ord, name[0])) % 6 if draw.random() < 0.8 else draw.randrange(8)
    return [name, *COMMANDS[name](draw, KEYS[index], draw.choice(KEYS))]


@pytest.mark.parametrize("seed", range(4))
def test_emulated_commands_give_the_replies_of_a_real_redis(
    servers: DifferentialRedis, seed: int
) -> None:
    draw = random.Random(seed)
    num_errors = 0
    for step in range(3000):
        reply = servers.send_words(*_random_command(draw))
        num_errors += isinstance(reply, ReplyError)
        if step % 100 == 0:
            servers.compare_states()
    servers.compare_states()
    assert 300 < num_errors < 2400, "neither mostly errors, nor mostly matching types"
