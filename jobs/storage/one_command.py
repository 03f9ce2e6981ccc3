"""A Redis client whose transactions are one command each.

RQ notes a job's life in transactions of up to fifteen commands. Sent as one script they are as
atomic, and cost one command on the wire instead of MULTI, all of them and EXEC.
"""

from __future__ import annotations

from typing import Any

import redis
from redis.client import Pipeline

_SCRIPT = """
local answers, place = {}, 1
while place <= #ARGV do
  local last = place + tonumber(ARGV[place])
  answers[#answers + 1] = redis.call(unpack(ARGV, place + 1, last))
  place = last + 1
end
return answers
"""


class OneCommandRedis(redis.Redis):  # type: ignore[misc]
    """``redis.Redis`` but for its transactional pipelines, whose answers come as Redis gives them.

    A pipeline that watches a key stays what it is.
    """

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        if not transaction:
            return super().pipeline(transaction, shard_hint)
        return _OneCommandPipeline(self)


class _OneCommandPipeline(Pipeline):  # type: ignore[misc]
    def __init__(self, client: OneCommandRedis) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, True, None)
        self._script = client.register_script(_SCRIPT)
        self._client = client

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        if self.watching or self.explicit_transaction or not self.command_stack:
            found: list[Any] = super().execute(raise_on_error)
            return found
        sent: list[Any] = []
        for command, _options in self.command_stack:
            sent += [len(command), *command]
        self.reset()
        answers: list[Any] = self._script(args=sent, client=self._client)
        return answers
