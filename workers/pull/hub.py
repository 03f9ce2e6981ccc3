"""The hub's HTTP API: commit, list of files, and the bytes of a file from an offset on.

https://huggingface.co/docs/hub/api. The token goes to the hub only: httpx drops the header when a
redirect leads to another origin. It is in no message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from jobs.contract.errors import (
    HubChangedError,
    HubRateLimitedError,
    HubUnreachableError,
    JobError,
    PullError,
    RepoAccessError,
    RepoNotFoundError,
)
from jobs.settings import is_loopback
from workers.pull.patience import PassingError, Patience

_MAX_PAGES = 200  # of up to 1000 files
_AGENT = "mlx-gguf-server"
_SECONDS = re.compile(r"\bt=(\d+)")
_HEX = re.compile(r"[0-9a-f]{40,64}")
_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a commit. ``digest``: SHA-256 of a large file, else Git's SHA-1 of the blob."""

    path: str
    size: int
    digest: str
    is_large: bool


@dataclass(frozen=True, slots=True)
class HubAccess:
    """How to reach the hub: its URL, the user's token, seconds without a byte until a retry."""

    endpoint: str
    token: str | None = None
    is_offline: bool = False
    timeout_s: float = 10.0


class Hub:
    """A client of the hub for one repository. Requests that fail in passing are repeated."""

    def __init__(self, access: HubAccess, repo: str, patience: Patience) -> None:
        if access.is_offline:
            raise HubUnreachableError("HF_HUB_OFFLINE is set: nothing can be downloaded")
        self._access = access
        self._repo = repo
        self._patience = patience
        self._client = httpx.Client(
            timeout=httpx.Timeout(access.timeout_s, connect=_CONNECT_S),
            follow_redirects=True,
            # Requests to this machine bypass the proxy of the environment.
            trust_env=not is_loopback(urlsplit(access.endpoint).hostname or ""),
        )

    def close(self) -> None:
        self._client.close()

    def resolve(self, revision: str) -> str:
        """The commit of a branch, tag or commit. Raises ``PullError`` of some kind."""
        body, _ = self._get_json(f"{self._api}/revision/{quote(revision, safe='')}")
        commit = body.get("sha") if isinstance(body, dict) else None
        if not isinstance(commit, str) or not _HEX.fullmatch(commit):
            raise PullError(f"the hub's answer names no commit of {self._repo}")
        return commit

    def files(self, commit: str) -> list[RemoteFile]:
        """All files of the commit."""
        found: list[RemoteFile] = []
        url = f"{self._api}/tree/{commit}?recursive=true"
        for _ in range(_MAX_PAGES):
            body, following = self._get_json(url)
            entries = body if isinstance(body, list) else []
            found += [file for entry in entries if (file := _file_of(entry)) is not None]
            if following is None:
                return found
            url = following
        raise PullError(f"the list of {self._repo}'s files is too long")

    @contextmanager
    def open(self, commit: str, file: RemoteFile, offset: int) -> Iterator[tuple[int, Any]]:
        """The file's bytes: yields where they begin (``offset``, or 0 if the hub begins anew) and
        an iterator of them. Raises ``PassingError`` or a ``PullError``.
        """
        url = f"{self._access.endpoint}/{self._repo}/resolve/{commit}/{quote(file.path)}"
        headers = self._headers() | {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with _passing(), self._client.stream("GET", url, headers=headers) as response:
            self._check(response)
            _check_commit(response, commit, file)
            if offset and response.status_code == httpx.codes.PARTIAL_CONTENT:
                _check_range(response, file, offset)
                yield offset, response.iter_raw()
            else:
                yield 0, response.iter_raw()

    @property
    def _api(self) -> str:
        return f"{self._access.endpoint}/api/models/{self._repo}"

    def _headers(self) -> dict[str, str]:
        token = self._access.token
        own = {"User-Agent": _AGENT}
        return own | {"Authorization": f"Bearer {token}"} if token else own

    def _get_json(self, url: str) -> tuple[Any, str | None]:
        """The answer's JSON, and the URL of the next page."""

        def get() -> tuple[Any, str | None]:
            with _passing():
                response = self._client.get(url, headers=self._headers())
            self._check(response)
            try:
                body = msgspec.json.decode(response.content)
            except msgspec.DecodeError:
                raise PullError(f"the hub's answer about {self._repo} is no JSON") from None
            return body, self._next_page(response)

        return self._patience.keep_trying(get)

    def _next_page(self, response: httpx.Response) -> str | None:
        """The next page's URL, always on the hub itself: the token is sent with it."""
        link = response.links.get("next", {}).get("url")
        if link is None:
            return None
        target = urlsplit(link)._replace(scheme="", netloc="").geturl()
        return str(httpx.URL(self._access.endpoint).join(target))

    def _check(self, response: httpx.Response) -> None:
        """Raise why the hub refuses, or ``PassingError`` when it may work later."""
        status, wait_s = response.status_code, _retry_after(response)
        if status == httpx.codes.TOO_MANY_REQUESTS:
            when = f" (for {wait_s:g} s)" if wait_s else ""
            error = f"the hub takes no more requests{when}: repeat the pull later"
            raise PassingError(HubRateLimitedError(error), wait_s)
        if status >= 500 or status == httpx.codes.REQUEST_TIMEOUT:
            raise PassingError(HubUnreachableError(f"the hub answers with HTTP {status}"), wait_s)
        if not response.is_success:
            raise (
                self._refusal(response)
                if self._is_hub(response.url)
                else PassingError(
                    # A signed address may have expired; the next try gets another one.
                    HubUnreachableError(f"the hub's file server answers with HTTP {status}")
                )
            )

    def _is_hub(self, url: httpx.URL) -> bool:
        hub = httpx.URL(self._access.endpoint)
        return (url.scheme, url.host, url.port) == (hub.scheme, hub.host, hub.port)

    def _refusal(self, response: httpx.Response) -> JobError:
        """The hub's refusal, by its ``X-Error-Code``."""
        code, repo = response.headers.get("X-Error-Code", ""), self._repo
        said = response.headers.get("X-Error-Message", "")
        status = response.status_code
        if code == "GatedRepo":
            how = "the token has no access" if self._access.token else "set HF_TOKEN"
            message = f"{repo} is gated: accept its terms on the hub, {how}"
            return RepoAccessError(message, "model")
        if said.startswith("Invalid credentials"):
            return RepoAccessError("the hub refuses the token in HF_TOKEN or its file")
        if said.startswith("Access to this resource is disabled"):
            return RepoAccessError(f"the hub has disabled access to {repo}", "model")
        if code == "RevisionNotFound":
            return RepoNotFoundError(f"{repo} has no such revision", "revision")
        if code == "EntryNotFound":
            return HubChangedError(f"{repo} was changed while it was downloaded: repeat the pull")
        if code == "RepoNotFound" or status in (401, 404):
            whose = "the token has no access to it" if self._access.token else "needs HF_TOKEN"
            return RepoNotFoundError(
                f"the hub has no {repo}, or it is private and {whose}", "model"
            )
        if status == httpx.codes.FORBIDDEN:
            return RepoAccessError(f"the hub denies access to {repo}", "model")
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return HubChangedError(f"a file of {repo} has become shorter: repeat the pull")
        return PullError(f"the hub answers with HTTP {status}")


@contextmanager
def _passing() -> Iterator[None]:
    """Within the block, errors of the connection are passing ones."""
    try:
        yield
    except httpx.TransportError as error:
        kind = type(error).__name__
        message = f"the connection to the hub failed ({kind}): repeat the pull later"
        raise PassingError(HubUnreachableError(message)) from None
    except (httpx.TooManyRedirects, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise PullError(f"the hub's address cannot be used ({type(error).__name__})") from None


def _file_of(entry: Any) -> RemoteFile | None:
    """A file of the list; ``None`` for a folder, or an entry that cannot be read."""
    if not isinstance(entry, dict) or entry.get("type") != "file":
        return None
    large = entry.get("lfs")
    digest = large.get("oid") if isinstance(large, dict) else entry.get("oid")
    path, size = entry.get("path"), entry.get("size")
    if isinstance(large, dict):
        size = large.get("size", size)
    if not (isinstance(path, str) and isinstance(digest, str) and _HEX.fullmatch(digest)):
        return None
    if not isinstance(size, int) or size < 0:
        return None
    return RemoteFile(path, size, digest, isinstance(large, dict))


def _check_commit(response: httpx.Response, commit: str, file: RemoteFile) -> None:
    for one in (*response.history, response):
        if one.headers.get("X-Repo-Commit", commit) != commit:
            message = f"the hub has another commit of {file.path} now: repeat the pull"
            raise HubChangedError(message)


def _check_range(response: httpx.Response, file: RemoteFile, offset: int) -> None:
    given = response.headers.get("Content-Range", "")
    if given.replace(" ", "") != f"bytes{offset}-{file.size - 1}/{file.size}":
        raise HubChangedError(f"{file.path} has another length now: repeat the pull")


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the hub asks to wait: ``Retry-After``, or ``t`` of the ``RateLimit`` header.

    The form with a date counts as none.
    """
    value = response.headers.get("Retry-After", "")
    found = _SECONDS.search(response.headers.get("RateLimit", ""))
    value = value or (found[1] if found else "")
    return float(value) if value.isascii() and value.isdigit() else None
