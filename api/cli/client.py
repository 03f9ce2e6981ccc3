"""The command line's HTTP client: requests, one-line errors, events of a job."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Generator, Iterable, Iterator
from typing import IO, Any

import httpx

from jobs.settings import Settings, is_loopback

_TIMEOUT = httpx.Timeout(30, connect=5)
_STREAM_TIMEOUT = httpx.Timeout(60, connect=5)
_PATIENT_TIMEOUT = httpx.Timeout(None, connect=5)
_DONE = "[DONE]"
_NUM_RECONNECTS = 5
_RECONNECT_PAUSE_S = 0.2

Json = dict[str, Any]


class CliError(Exception):
    """An error, as one line for the user."""


class ServerError(CliError):
    """The server answered with an error; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Server:
    """A client of the running server."""

    def __init__(self, settings: Settings, url: str | None = None) -> None:
        self.url = (url or _default_url(settings)).rstrip("/")
        key = settings.management_key or settings.api_key
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=_TIMEOUT,
            # Requests to this machine bypass the proxy of the environment.
            trust_env=not is_loopback(httpx.URL(self.url).host),
        )

    def get(self, path: str, **params: str | int | None) -> Json:
        """The JSON answer to a GET; ``None`` parameters are left out."""
        given = {name: value for name, value in params.items() if value is not None}
        return _json(self._send("GET", path, params=given))

    def post(self, path: str, body: Json, headers: dict[str, str]) -> httpx.Response:
        """The successful answer to a POST; raises ``CliError`` for any other."""
        return self._send("POST", path, json=body, headers=headers)

    def post_patiently(self, path: str, body: Json) -> Json:
        """The JSON answer to a POST that may take as long as a model takes to load."""
        return _json(self._send("POST", path, json=body, timeout=_PATIENT_TIMEOUT))

    def upload(self, path: str, file: IO[bytes], name: str, purpose: str) -> Json:
        """The JSON answer to a file that is sent as a form."""
        files, data = {"file": (name, file)}, {"purpose": purpose}
        return _json(self._send("POST", path, files=files, data=data, timeout=_PATIENT_TIMEOUT))

    def download(self, path: str) -> Iterator[bytes]:
        """The bytes of a file, as they come."""
        stream = self._client.stream("GET", path, timeout=_STREAM_TIMEOUT)
        with self._explained(), stream as response:
            _check(response)
            yield from response.iter_bytes()

    def stream(self, path: str, body: Json) -> Generator[Json, None, None]:
        """The chunks of a streamed answer. Closing the iterator ends the request, and its job."""
        stream = self._client.stream("POST", path, json=body, timeout=_STREAM_TIMEOUT)
        with self._explained(), stream as response:
            _check(response)
            for _, data in _frames(response.iter_lines()):
                if data == _DONE:
                    return
                yield json.loads(data)

    def delete(self, path: str) -> httpx.Response:
        """The successful answer to a DELETE; raises ``CliError`` for any other."""
        return self._send("DELETE", path)

    def events(self, path: str) -> Iterator[Json]:
        """Events of a job up to the terminal one, with reconnects."""
        last_id = ""
        for attempt in range(_NUM_RECONNECTS):
            time.sleep(attempt * _RECONNECT_PAUSE_S)
            try:
                for event_id, event in self._read_events(path, last_id):
                    last_id = event_id
                    yield event
                    if event["kind"] in ("finished", "failed", "cancelled"):
                        return
            except httpx.TransportError:
                continue
        raise CliError(f"the connection to {self.url} broke {_NUM_RECONNECTS} times")

    def _read_events(self, path: str, last_id: str) -> Iterator[tuple[str, Json]]:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        stream = self._client.stream("GET", path, headers=headers, timeout=_STREAM_TIMEOUT)
        with stream as response:
            _check(response)
            for event_id, data in _frames(response.iter_lines()):
                yield event_id or last_id, json.loads(data)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self._explained():
            response = self._client.request(method, path, **options)
        _check(response)
        return response

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Within the block, errors of the connection are ``CliError``."""
        try:
            yield
        except httpx.ConnectError:
            raise CliError(f"no server at {self.url}: start it with `mgs serve`") from None
        except httpx.TransportError as error:
            raise CliError(f"the server at {self.url} does not answer: {error}") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise CliError(f"{self.url} is not a server's address: {error}") from None


def _frames(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Id, "" before the first, and data of server-sent events."""
    event_id, data = "", ""
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            event_id = value
        elif name == "data":
            data += value
        elif not line and data:
            yield event_id, data
            data = ""


def _check(response: httpx.Response) -> None:
    """Raise the error of an answer that is one."""
    if response.is_error:
        response.read()
        raise _error_of(response)


def _default_url(settings: Settings) -> str:
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host
    host = "::1" if host == "::" else host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _json(response: httpx.Response) -> Json:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise CliError(
            f"{response.request.url} is not an mlx-gguf-server: its answer is no JSON object"
        )
    return answer


def _error_of(response: httpx.Response) -> ServerError:
    try:
        body = response.json()
        message = body["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = response.reason_phrase
    hint = " (set MGS_API_KEY or MGS_MANAGEMENT_KEY)" if response.status_code == 401 else ""
    return ServerError(f"{message}{hint}", response.status_code)
