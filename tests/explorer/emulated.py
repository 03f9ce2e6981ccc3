"""A whole Redis of the explorer: what one request does to one state."""

from __future__ import annotations

from typing import NamedTuple

from tests.explorer.client import Request, Words
from tests.explorer.commands import Reply, ReplyError, run
from tests.explorer.lua import Scripts
from tests.explorer.memory import Cells, Database, Published, Sight, Transaction, see_all


class Outcome(NamedTuple):
    """Replies (an error of Redis is one), the state after, and what was published."""

    replies: tuple[Reply | ReplyError, ...]
    after: Database
    published: tuple[Published, ...]


class EmulatedRedis:
    """The rules; states come and go. Its clock stands still at ``now`` (s, µs)."""

    def __init__(self, now: tuple[int, int], sight: Sight = see_all) -> None:
        self.cells = Cells()
        self.scripts = Scripts()
        self.now = now
        self.sight = sight

    def do(self, before: Database, request: Request) -> Outcome:
        """Run all commands of the request as one step."""
        transaction = Transaction(self.cells, before, self.now, self.sight)
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
