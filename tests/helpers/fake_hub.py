"""A hub on loopback, and a second origin for its large files; with faults on request."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_PAGE = 3  # files per page of the list
_BLOCK = 1 << 16


@dataclass
class HubFile:
    """A file; ``data`` are its bytes, or ``path`` a file on disk that has them."""

    data: bytes = b""
    is_large: bool = True
    path: str = ""

    @property
    def size(self) -> int:
        return os.path.getsize(self.path) if self.path else len(self.data)

    @property
    def digest(self) -> str:
        if self.path:
            with open(self.path, "rb") as source:
                return hashlib.file_digest(source, "sha256").hexdigest()
        if self.is_large:
            return hashlib.sha256(self.data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


Fault = Callable[["Handler", str, int], bool]
"""Called with the handler, the file's path and the offset before a file is sent; True: it has
answered itself."""


@dataclass
class FakeHub:
    """``repos``: repository -> commit -> files; ``heads``: repository -> commit of main.

    ``seen`` has each request: (method, path, Range, Authorization, port).
    """

    repos: dict[str, dict[str, dict[str, HubFile]]] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[str, str, str, str, int]] = field(default_factory=list)
    refusals: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    fault: Fault | None = None
    api_fault: Callable[[Handler], bool] | None = None
    token: str = ""
    ports: tuple[int, int] = (0, 0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    def reset(self) -> None:
        """Forget all that tests have set."""
        for part in (self.repos, self.heads, self.seen, self.refusals):
            part.clear()
        self.fault = self.api_fault = None

    def add(self, repo: str, files: dict[str, HubFile], commit: str = "") -> str:
        """Commit the files to main; returns the commit."""
        commit = commit or hashlib.sha1(os.urandom(8)).hexdigest()
        self.repos.setdefault(repo, {})[commit] = files
        self.heads[repo] = commit
        return commit

    def offsets_of(self, name: str) -> list[int]:
        """Where each transfer of the large file's bytes began."""
        return [
            int(given.removeprefix("bytes=").rstrip("-") or 0)
            for method, path, given, _, _ in self.seen
            if method == "GET"
            and path.startswith("/large/")
            and urlsplit(path).path.endswith(f"/{name}")
        ]


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each answer takes 40 ms
    hub: FakeHub

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        given = self.headers.get("Range", ""), self.headers.get("Authorization", "")
        self.hub.seen.append((self.command, self.path, *given, port))
        path = urlsplit(self.path).path
        for part, (status, headers) in self.hub.refusals.items():
            if part in self.path:
                return self.answer(status, b'{"error":"refused"}', **headers)
        if path.startswith("/api/models/"):
            return self._api(path.removeprefix("/api/models/"))
        if path.startswith("/large/"):
            return self._file(path.removeprefix("/large/"), is_here=True)
        return self._file(path.lstrip("/"), is_here=False)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _api(self, rest: str) -> None:
        if self.hub.api_fault is not None and self.hub.api_fault(self):
            return
        for kind in ("/revision/", "/tree/"):
            repo, found, revision = rest.partition(kind)
            if found:
                break
        commits = self.hub.repos.get(repo)
        if commits is None:
            return self.answer(401, b"{}", X_Error_Code="RepoNotFound")
        commit = self.hub.heads[repo] if revision == "main" else revision
        if commit not in commits:
            return self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
        if kind == "/revision/":
            return self.answer(200, json.dumps({"id": repo, "sha": commit}).encode())
        self._tree(repo, commit, commits[commit])

    def _tree(self, repo: str, commit: str, files: dict[str, HubFile]) -> None:
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        names = sorted(files)
        page: list[dict[str, Any]] = [{"type": "directory", "oid": "0" * 40, "path": "folder"}]
        for name in names[start : start + _PAGE]:
            file = files[name]
            large = {"oid": file.digest, "size": file.size, "pointerSize": 130}
            entry = {"type": "file", "path": name, "size": file.size, "oid": file.digest}
            page.append(entry | ({"oid": "1" * 40, "lfs": large} if file.is_large else {}))
        headers = {}
        if start + _PAGE < len(names):
            url = f"{self.hub.url}/api/models/{repo}/tree/{commit}"
            headers["Link"] = f'<{url}?recursive=true&cursor={start + _PAGE}>; rel="next"'
        self.answer(200, json.dumps(page).encode(), **headers)

    def _file(self, rest: str, *, is_here: bool) -> None:
        repo, _, rest_ = rest.partition("/resolve/")
        commit, _, name = rest_.partition("/")
        file = self.hub.repos[repo].get(commit, {}).get(unquote(name))
        if file is None:
            return self.answer(404, b"", X_Error_Code="EntryNotFound")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.digest}"'}
        if file.is_large and not is_here:
            headers |= {"X-Linked-Etag": f'"{file.digest}"', "X-Linked-Size": str(file.size)}
            place = f"http://127.0.0.1:{self.hub.ports[1]}/large/{rest}?signature=secret"
            return self.answer(302, b"", Location=place, **headers)
        offset = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if self.hub.fault is not None and self.hub.fault(self, name, offset):
            self.close_connection = True
            return
        self.send_file(file, offset)

    def send_file(
        self, file: HubFile, offset: int, *, until: int | None = None, status: int = 0
    ) -> None:
        """Send the bytes from the offset on; up to ``until`` and no further, then hang up."""
        self.send_response(status or (206 if offset else 200))
        self.send_header("Content-Length", str(file.size - offset))
        if offset and status != 200:
            self.send_header("Content-Range", f"bytes {offset}-{file.size - 1}/{file.size}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if file.path:
            with open(file.path, "rb") as source:
                self.wfile.flush()
                self.connection.sendfile(source, offset)
            return
        self.wfile.write(file.data[offset:until])
        if until is not None:
            self.wfile.flush()
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients of these tests hang up on purpose."""


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A running hub, empty."""
    hub = FakeHub()
    handler = type("HubHandler", (Handler,), {"hub": hub})
    servers = [_Server(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.ports = (servers[0].server_address[1], servers[1].server_address[1])
    threads = [
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        for server in servers
    ]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def small(text: str) -> HubFile:
    """A file that the hub keeps in Git."""
    return HubFile(text.encode(), is_large=False)


def mlx_files(size: int = 3_000_000) -> dict[str, HubFile]:
    """An MLX model in two shards, with files that nobody needs."""
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors",
                            "b": "model-00002-of-00002.safetensors"}}  # fmt: skip
    return {
        ".gitattributes": small("*.safetensors filter=lfs"),
        "README.md": small("# A model"),
        "config.json": small('{"model_type": "llama"}'),
        "model-00001-of-00002.safetensors": HubFile(os.urandom(size)),
        "model-00002-of-00002.safetensors": HubFile(os.urandom(size // 2)),
        "model.safetensors.index.json": small(json.dumps(index)),
        "modeling.py": small("raise SystemExit"),
        "pytorch_model.bin": HubFile(b"old"),
        "tokenizer.json": HubFile(b'{"version": "1.0"}'),
    }


def gguf_files(*names: str, size: int = 2_000_000) -> dict[str, HubFile]:
    """GGUF files of those names."""
    return {"README.md": small("# A model")} | {
        name: HubFile(b"GGUF" + os.urandom(size)) for name in names
    }


class HeldHub:
    """A hub that sends a part of one file, and the rest only after ``release``."""

    FILE = "model-00001-of-00002.safetensors"

    def __init__(self, hub: FakeHub, repo: str, size: int = 3_000_000) -> None:
        self.hub = hub
        self.files = mlx_files(size)
        hub.add(repo, self.files)
        self.held = threading.Event()
        self._released = threading.Event()
        self.num_bytes = 1_000_000
        hub.fault = self._hold

    def release(self) -> None:
        self._released.set()

    def _hold(self, handler: Handler, path: str, offset: int) -> bool:
        if path != self.FILE or self._released.is_set():
            return False
        file = self.files[self.FILE]
        handler.send_response(206 if offset else 200)
        handler.send_header("Content-Length", str(file.size - offset))
        if offset:
            handler.send_header("Content-Range", f"bytes {offset}-{file.size - 1}/{file.size}")
        handler.end_headers()
        handler.wfile.write(file.data[offset : max(offset, self.num_bytes)])
        handler.wfile.flush()
        self.held.set()
        self._released.wait(60)
        return True
