"""Chats with tools over HTTP against tiny models of many call dialects."""

from __future__ import annotations

import asyncio
import itertools
import os
import random

import httpx

from tests.helpers.server import make_server
from tests.proofs.registry import Result, Tally, proof
from tests.world.chats import ask, make_chat
from tests.world.talkers import TALKERS, Talker

SEED = int(os.environ.get("MGS_WORLD_SEED", "7"))
_AT_ONCE = 6
_FEWEST = 5  # chats of a model that is loaded for them
_TIMEOUT_S = 300.0


@proof(
    "world-chats",
    goal="arguments of every finished call valid against their schema; a call that is cut is a "
    "partial one, with `length`; 0 texts of markup shown; streamed = whole",
    full=2000,
    fast=30,
)
def test_chats_with_tools_in_nine_call_dialects_on_both_engines(rounds: int) -> Result:
    """The weights are random, so what a model writes freely is noise.

    Forced calls follow a grammar and are judged whole. Where the model may call (``auto``), its
    markers are made likely: those answers are judged by what they show, and by the calls that they
    happen to make.
    """
    tally = Tally()
    talkers = TALKERS[: max(1, rounds // _FEWEST)]
    shares = [len(one) for one in _dealt(rounds, len(talkers))]
    server = make_server(MGS_REQUEST_TIMEOUT_S="600")
    try:
        for talker in talkers:
            talker.write(server.folder / "models")
        server.start_all()
        for number, (talker, share) in enumerate(zip(talkers, shares, strict=True)):
            server.load(talker.name, slots=4)
            asyncio.run(_talk(server.url, talker, share, random.Random(SEED + number), tally))
            server.unload()
    finally:
        server.stop()
    tally.rounds = rounds
    dialects = len({talker.idiom.name for talker in talkers})
    return tally.result(f"{rounds} chats, {len(talkers)} models of {dialects} dialects")


def _dealt(rounds: int, hands: int) -> list[range]:
    return [range(first, rounds, hands) for first in range(hands)]


async def _talk(url: str, talker: Talker, count: int, rng: random.Random, tally: Tally) -> None:
    limit = asyncio.Semaphore(_AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S) as client:

        async def one() -> None:
            chat = make_chat(rng, talker)
            async with limit:
                for problem in await ask(client, talker, chat):
                    tally.check(False, f"{talker.name}, seed {chat.body['seed']}: {problem}")
            tally.count(f"{'forced' if chat.is_forced else 'free'}, {chat.way}")

        await asyncio.gather(*itertools.starmap(one, itertools.repeat((), count)))
