"""A client that sits beside an API, in its namespace: the API's cable is not the client's."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import threading
import time
from typing import Any

from tests.helpers.netns import Host as Place
from tests.helpers.waiting import wait_until

_TIMEOUT_S = 150.0
PROMPT = "count"


class _Connection(http.client.HTTPConnection):
    """To the loopback address of a place."""

    def __init__(self, place: Place, port: int, timeout_s: float) -> None:
        super().__init__("127.0.0.1", port, timeout=timeout_s)
        self._place = place

    def connect(self) -> None:
        with self._place.inside():
            super().connect()


class Client:
    """Requests to one API."""

    def __init__(self, place: Place, port: int) -> None:
        self._place = place
        self._port = port

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        model_id: str = "0",
        timeout_s: float = _TIMEOUT_S,
    ) -> tuple[int, Any]:
        """Status and decoded body of the answer."""
        connection = self.open(timeout_s)
        try:
            answer = self.send(connection, method, path, body, model_id)
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def open(self, timeout_s: float = _TIMEOUT_S) -> http.client.HTTPConnection:
        return _Connection(self._place, self._port, timeout_s)

    def send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any,
        model_id: str,
    ) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Model-Id": model_id, "Content-Type": "application/json"}
        connection.request(method, path, data, headers)
        return connection.getresponse()

    def is_listening(self) -> bool:
        try:
            with self._place.inside(), socket.create_connection(("127.0.0.1", self._port), 1):
                return True
        except OSError:
            return False

    def load(self, name: str, model_id: str = "0") -> None:
        """Load a model and wait until it is ready."""
        path = "/v1/internal/model/load"
        answer = self.ask("POST", path, {"llm_model_name": name}, model_id)
        assert answer == (200, {"load": "success"}), answer

    def unload(self, model_id: str = "0") -> None:
        answer = self.ask("POST", "/v1/internal/model/unload", None, model_id)
        assert answer == (200, {"unload": "success"}), answer

    def complete(self, num_tokens: int, model_id: str = "0", **fields: Any) -> str:
        """The text of a whole completion."""
        status, answer = self.ask(
            "POST", "/v1/completions", body_of(num_tokens, **fields), model_id
        )
        assert status == 200, answer
        return str(answer["choices"][0]["text"])

    def is_answered(self, body: dict[str, Any], model_id: str) -> bool:
        """Whether a completion can be had just now."""
        return self.ask("POST", "/v1/completions", body, model_id)[0] == 200

    def submit(self, num_tokens: int, model_id: str = "0", **fields: Any) -> str:
        """A completion in the background; its job's id."""
        body = body_of(num_tokens, background=True, **fields)
        status, answer = self.ask("POST", "/v1/completions", body, model_id)
        assert status == 202, answer
        return str(answer["id"])

    def stream(self, num_tokens: int, model_id: str = "0", **fields: Any) -> Stream:
        """A stream that has begun to be read."""
        stream = Stream(self, body_of(num_tokens, stream=True, **fields), model_id)
        stream.start()
        return stream


def body_of(num_tokens: int, **fields: Any) -> dict[str, Any]:
    """A completion that counts, and does not end before its time."""
    fixed = {"prompt": PROMPT, "temperature": 0, "ignore_eos": True}
    return {**fixed, "max_tokens": num_tokens, **fields}


class Stream(threading.Thread):
    """A client that reads to the end and notes when each piece came."""

    def __init__(self, client: Client, body: dict[str, Any], model_id: str) -> None:
        super().__init__(name="stream", daemon=True)
        self.job_id = ""
        self.arrivals: list[float] = []
        self.pieces: list[str] = []
        self.finish_reason = ""
        self.error: Any = None
        """What ended it before its time: an error frame's content, or an exception."""
        self.ended_at = 0.0
        self._client = client
        self._body = body
        self._model_id = model_id

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def run(self) -> None:
        connection = self._client.open()
        try:
            self._read(connection)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.error = self.error or error
        finally:
            connection.close()
            self.ended_at = time.monotonic()

    def _read(self, connection: http.client.HTTPConnection) -> None:
        answer = self._client.send(
            connection, "POST", "/v1/completions", self._body, self._model_id
        )
        self.job_id = answer.headers.get("X-Job-Id", "")
        if answer.status != 200:
            self.error = answer.read().decode()
            return
        for line in answer:
            if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                self._take(json.loads(line[6:]))

    def _take(self, frame: dict[str, Any]) -> None:
        if "error" in frame:
            self.error = frame["error"]
            return
        for choice in frame["choices"]:
            if choice["text"]:
                self.arrivals.append(time.monotonic())
                self.pieces.append(choice["text"])
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def wait_running(self, num_pieces: int = 20) -> None:
        """Return once so many pieces more have come."""
        goal = len(self.pieces) + num_pieces
        wait_until(lambda: len(self.pieces) >= goal or self.ended_at, f"{num_pieces} pieces", 60.0)
        assert not self.ended_at, self.error

    def wait_ended(self, timeout_s: float) -> None:
        self.join(timeout_s)
        assert self.ended_at, f"the stream {self.job_id} has not ended in {timeout_s} s"

    def silence_after(self, moment: float) -> float:
        """How long after ``moment`` the next piece came, or the end."""
        return min(at for at in (*self.arrivals, self.ended_at) if at > moment) - moment

    def longest_gap(self, start: float = 0.0, end: float = float("inf")) -> float:
        """The longest time without a piece, of those between two moments."""
        times = [at for at in self.arrivals if start <= at <= end]
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)
