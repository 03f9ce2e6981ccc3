"""The emulated Redis: the effect of one request on one state."""

from __future__ import annotations

from typing import NamedTuple

from tests.explorer.client import Request, Words
from tests.explorer.commands import Reply, ReplyError, run
from tests.explorer.lua import Scripts
from tests.explorer.memory import Cells, ConstantOf, Database, Published, Transaction, no_constants


class Outcome(NamedTuple):
    """Replies (error replies included), the state after, and the published messages."""

    replies: tuple[Reply | ReplyError, ...]
    after: Database
    published: tuple[Published, ...]


class EmulatedRedis:
    """Holds no state itself: that is passed in. Its clock is fixed at ``now`` (s, µs)."""

    def __init__(self, now: tuple[int, int], constant_of: ConstantOf = no_constants) -> None:
        self.cells = Cells()
        self.scripts = Scripts()
        self.now = now
        self.constant_of = constant_of

    def apply(self, before: Database, request: Request) -> Outcome:
        """Run all commands of the request as one step."""
        transaction = Transaction(self.cells, before, self.now, self.constant_of)
        replies = tuple(self._reply(transaction, words) for words in request.commands)
        return Outcome(replies, transaction.commit(), tuple(transaction.published))

    def _reply(self, transaction: Transaction, words: Words) -> Reply | ReplyError:
        try:
            if words[0] == b"EVALSHA":
                first = 3 + int(words[2])
                return self.scripts.run(transaction, words[1], words[3:first], words[first:])
            return run(transaction, words)
        except ReplyError as error:
            return error
