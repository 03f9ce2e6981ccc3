"""Chats with tools over HTTP against tiny models of many call dialects."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterable
from functools import partial
from typing import Any

import httpx

from tests.helpers.server import Server, make_server
from tests.proofs.registry import Result, Tally, proof
from tests.world.chats import Chat, Judge, ask, make_chat, problems
from tests.world.scripted import Script, make_script
from tests.world.scripted_chats import differences, make_scripted_chat
from tests.world.talkers import TALKERS

SEED = int(os.environ.get("MGS_WORLD_SEED", "7"))
_AT_ONCE = 6
_FEWEST = 5  # chats of a model that is loaded for them
_PER_SCRIPT = 10  # chats
_TIMEOUT_S = 300.0
_MOST_LOST = 40.0  # per cent


@proof(
    "world-chats",
    goal="thoughts, texts and arguments as they were said; arguments of every finished call valid "
    "against their schema; a call that is cut is a partial one, with `length`; 0 texts of markup "
    "shown; streamed = whole",
    full=2000,
    fast=30,
)
def test_chats_with_tools_in_nine_call_dialects_on_both_engines(rounds: int) -> Result:
    """Half of the chats are with models that say a script, which has to come back.

    The others have random weights, so what they write freely is noise. Forced calls follow a
    grammar and are judged whole. Where such a model may call (``auto``), its markers are made
    likely: those answers are judged by what they show, and by the calls that they happen to make.
    """
    tally = Tally()
    server = make_server(MGS_REQUEST_TIMEOUT_S="600")
    try:
        server.start_all()
        num_scripted = rounds // 2
        num_random = rounds - num_scripted
        dialects = _talk_at_random(server, num_random, tally)
        num_scripts = _talk_by_scripts(server, num_scripted, tally)
    finally:
        server.stop()
    tally.rounds = rounds
    return tally.result(f"{rounds} chats, {dialects} dialects, {num_scripts} scripts")


def _talk_at_random(server: Server, rounds: int, tally: Tally) -> int:
    """The number of dialects."""
    talkers = TALKERS[: max(1, rounds // _FEWEST)]
    for number, talker in enumerate(talkers):
        rng = random.Random(SEED + number)
        chats = [make_chat(rng, talker) for _ in range(number, rounds, len(talkers))]
        talker.write(server.folder / "models")
        _talk(server, talker.name, chats, partial(problems, talker), tally)
    return len({talker.idiom.name for talker in talkers})


def _talk_by_scripts(server: Server, rounds: int, tally: Tally) -> int:
    """The number of scripts."""
    starts = range(0, rounds, _PER_SCRIPT)
    lost: list[Script] = []
    for number, start in enumerate(starts):
        rng = random.Random(SEED + start)
        talker = TALKERS[number % len(TALKERS)]
        script = make_script(rng, talker, is_forced=rng.random() < 0.5)
        name = f"says-{number}" + (".gguf" if talker.is_gguf else "")
        script.write(server.folder / "models", name.removesuffix(".gguf"))
        count = min(_PER_SCRIPT, rounds - start)
        chats = [make_scripted_chat(rng, script) for _ in range(count)]
        judge = partial(differences, script, partial(lost.append, script))
        _talk(server, name, chats, judge, tally, has_token_ids=True)
    # A grammar that leaves one text only asks for another cut of it than the script's.
    tally.note("scripts not kept to, not judged", 100 * len(lost) / rounds, _MOST_LOST, "%")
    return len(starts)


def _shown(chat: Chat) -> dict[str, Any]:
    return {key: value for key, value in chat.body.items() if key != "messages"}


def _talk(
    server: Server,
    model: str,
    chats: Iterable[Chat],
    judge: Judge,
    tally: Tally,
    *,
    has_token_ids: bool = False,
) -> None:
    server.load(model, slots=4)
    asyncio.run(_ask_all(server.url, model, chats, judge, tally, has_token_ids))
    server.unload()


async def _ask_all(
    url: str,
    model: str,
    chats: Iterable[Chat],
    judge: Judge,
    tally: Tally,
    has_token_ids: bool,
) -> None:
    limit = asyncio.Semaphore(_AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S) as client:

        async def one(chat: Chat) -> None:
            async with limit:
                for problem in await ask(client, chat, judge, has_token_ids=has_token_ids):
                    tally.check(False, f"{model}, {_shown(chat)}: {problem}")
            tally.count(f"{'forced' if chat.is_forced else 'free'}, {chat.way}")

        await asyncio.gather(*map(one, chats))
