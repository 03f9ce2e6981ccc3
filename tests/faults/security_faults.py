"""S: attacks. (S1, S2, S8 and S14 are tests of other folders.)"""

from __future__ import annotations

import ast
import asyncio
import os
import re
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

import httpx
from rq.job import Job
from rq.serializers import JSONSerializer

from tests.faults.clients import body, read_all, read_stream, retry
from tests.faults.redis_faults import cutting
from tests.faults.registry import Result, Run, Tally
from tests.faults.rig import (
    Rig,
    direct_client,
    remote_server,
    running_server,
    stop_or_kill,
    submit,
    wait_ended,
)
from tests.helpers.processes import free_port
from tests.helpers.server import ROOT, Server, make_server

# S3.


def keys(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    key, manager = secrets.token_hex(16), secrets.token_hex(16)
    with running_api(MGS_API_KEY=key, MGS_MANAGEMENT_KEY=manager) as server:
        given: list[dict[str, str]] = [
            {},
            {"Authorization": ""},
            {"Authorization": "Bearer"},
            {"Authorization": "bearer x"},
            {"Authorization": f"Bearer {key[:-1]}"},
            {"Authorization": f"Bearer {key}x"},
            {"Authorization": f"Basic {key}"},
            {"Authorization": "Bearer " + "x" * 8000},
            {"X-Api-Key": "\u00e9" * 8},
            {"Cookie": f"key={key}"},
        ]
        for _ in range(rounds):
            bodies = set()
            for headers in given:
                for path in ("/v1/models", f"/v1/jobs?api_key={key}", "/management/processes"):
                    raw = {k: v.encode() for k, v in headers.items()}
                    answer = httpx.get(f"{server.url}{path}", headers=raw, timeout=10)
                    tally.check(answer.status_code == 401, f"{headers} {path}")
                    bodies.add(answer.content)
                    tally.rounds += 1
            tally.check(len(bodies) == 1, "the refusals differ")
            user = {"Authorization": f"Bearer {key}"}
            found = httpx.get(f"{server.url}/management/processes", headers=user, timeout=10)
            tally.check(found.status_code == 403, f"a user manages: {found.status_code}")
    return tally.result()


@contextmanager
def running_api(**env: str) -> Iterator[Server]:
    """Redis and an API; all routes but /health may need a key."""
    server = make_server(**env)
    try:
        server.start("redis", "jobs.embedded_redis.launcher")
        server.start("web", "api")
        retry(lambda: httpx.get(f"{server.url}/health", timeout=5).status_code == 200)
        yield server
    finally:
        stop_or_kill(server)
        shutil.rmtree(server.folder, ignore_errors=True)


# S4.


def open_without_key(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MGS_", "REDIS_"))}
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com") * rounds:
        env = {**kept, "MGS_HOST": host, "MGS_PORT": str(free_port()), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "api"], cwd=ROOT, env=env, capture_output=True, timeout=60
        )
        output = done.stderr.decode()
        tally.check(done.returncode != 0, f"{host}: starts")
        tally.check("MGS_API_KEY" in output and output.count("\n") == 1, f"{host}: {output!r}")
        tally.rounds += 1
    return tally.result()


# S5.


def foreign_pages(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    hosts = ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1", "")
    origins = ("https://evil.example", "null", "http://127.0.0.1.evil.example", "file://")
    with rig.server("fake") as server:
        for _ in range(rounds):
            for host in hosts:
                answer = httpx.get(f"{server.url}/v1/models", headers={"Host": host}, timeout=10)
                tally.check(answer.status_code in (400, 421), f"Host {host!r}")
            for origin in origins:
                for method, path in (
                    ("GET", "/v1/models"),
                    ("OPTIONS", "/v1/completions"),
                    ("POST", "/v1/completions"),
                    ("POST", "/v1/internal/model/unload"),
                ):
                    answer = httpx.request(
                        method,
                        f"{server.url}{path}",
                        headers={"Origin": origin, "Content-Type": "text/plain"},
                        content=b'{"prompt": "k"}',
                        timeout=10,
                    )
                    tally.check(answer.status_code == 403, f"Origin {origin!r} {method} {path}")
                    cors = [name for name in answer.headers if name.startswith("access-control")]
                    tally.check(not cors, f"{cors}")
            tally.rounds += len(hosts) + 4 * len(origins)
        tally.check(
            "0" in server.processes_by_id(), "a page of another site has unloaded the model"
        )
    return tally.result()


# S6.

_ELSEWHERE = (
    "../../etc/passwd",
    "..",
    ".",
    "/etc/passwd",
    "~",
    "~root/.bashrc",
    "%2e%2e/secret",
    "demo/../../secret",
    "link-out",
    "a\x00b",
    "x" * 10_000,
    "dem\u043e",
    "a:intermediate",
    "a,b",
    "a\nb",
    "a b",
    "*",
    "",
)


def names_elsewhere(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server() as server:
        secret = server.folder / "secret.gguf"
        secret.write_bytes(b"secret-canary")
        (server.folder / "secret").mkdir()
        (server.folder / "secret" / "config.json").write_text('{"canary": "secret-canary"}')
        for _ in range(rounds):
            for name in _ELSEWHERE:
                _ask_for(server, name, tally)
                tally.rounds += 1
        tally.check(server.processes_by_id() == {}, "something is loaded")
    return tally.result()


def _ask_for(server: Server, name: str, tally: Tally) -> None:
    answers = [server.post("/v1/internal/model/load", {"llm_model_name": name})]
    info = f"{server.url}/v1/internal/model/info/{quote(name[:2000], safe='')}"
    answers.append(httpx.get(info, timeout=10))
    answers.append(httpx.get(f"{server.url}/v1/jobs", params={"model": name[:4000]}, timeout=10))
    for answer in answers:
        tally.check(answer.status_code < 500, f"{name[:30]!r}: {answer.status_code}")
        tally.check("secret-canary" not in answer.text, f"{name[:30]!r} is shown")
    is_refused = answers[0].status_code in (400, 404)
    tally.check(is_refused, f"load {name[:30]!r}: {answers[0].status_code} {answers[0].text[:80]}")
    try:
        found = httpx.post(
            f"{server.url}/v1/completions",
            json={"prompt": "k"},
            headers={"X-Model-Id": name.encode()},
            timeout=10,
        )
        tally.check(found.status_code in (400, 404), f"id {name[:30]!r}: {found.status_code}")
    except httpx.LocalProtocolError:
        return  # no client can send it


# S7.


def foreign_jobs(rig: Rig, rounds: int) -> Result:
    """Clients with one key may read each other's jobs by id: ids must not be guessable."""
    tally = Tally()
    with rig.server("fake") as server:
        ids = [submit(server, body(8, 1)) for _ in range(max(rounds, 10))]
        tally.check(len(set(ids)) == len(ids), "an id twice")
        for job_id in ids:
            digits = job_id.split("-")[1]
            is_random = re.fullmatch(r"[0-9a-f]{32}", digits) is not None
            tally.check(is_random, f"not 128 bits: {job_id}")
            for near in (
                job_id[:-1],
                job_id.upper(),
                f"{job_id} ",
                f"cmpl-{secrets.token_hex(16)}",
            ):
                for path in ("", "/events"):
                    answer = httpx.get(f"{server.url}/v1/jobs/{near}{path}", timeout=10)
                    is_hidden = answer.status_code == 404 or "job_not_found" in answer.text
                    tally.check(is_hidden, f"{near!r}: {answer.status_code}")
            tally.rounds += 1
        wait_ended(server, ids[-1])
    return tally.result()


# S10.


def canaries(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    canary = f"canary{secrets.token_hex(8)}"
    with running_server() as server:
        server.load("fake")
        for number in range(rounds):
            text = f"{canary}\n00:00:00 error forged: {number}\r\n\x1b[31m\x00\u2028{canary}"
            few = {"max_tokens": 4}
            httpx.get(f"{server.url}/v1/jobs/{canary}%0aforged", timeout=10)
            for answer in (
                server.post("/v1/completions", {"prompt": text, **few}),
                server.post("/v1/completions", {"prompt": text, "temperature": text}),
                server.post(
                    "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **few}
                ),
                server.post("/v1/internal/token-count", {"text": text}),
                server.post("/v1/internal/model/load", {"llm_model_name": text}, "1"),
            ):
                tally.check(answer.status_code < 500, answer.text)
            tally.rounds += 1
        _search(server, canary, tally)
    return tally.result()


def _search(server: Server, canary: str, tally: Tally) -> None:
    for log in server.folder.glob("*.log"):
        lines = log.read_text(errors="replace").splitlines()
        tally.check(not any(canary in line for line in lines), f"in {log.name}")
        tally.check(not any(line.startswith("00:00:00") for line in lines), f"forged: {log.name}")
    with direct_client(server.redis_url) as redis:
        for key in redis.keys("rq:job:*"):
            tally.check(canary.encode() not in str(redis.hgetall(key)).encode(), "in RQ's hash")
            job = Job.fetch(key.decode().removeprefix("rq:job:"), redis, JSONSerializer)
            tally.check(canary not in str(job.description), "in a description")


# S11.


def other_users(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with rig.server(None) as server:
        state = server.folder / "state"
        for path in (state, state / "redis.sock"):
            mode = stat.S_IMODE(path.stat().st_mode)
            tally.check(mode & 0o077 == 0, f"{path.name} is open to others: {mode:o}")
        with direct_client(server.redis_url) as redis:
            port = redis.config_get("port")["port"]
            tally.check(port == "0", f"Redis listens on TCP port {port}")
        tally.rounds = 1
    return tally.result()


# S12.


def addresses(rig: Rig, rounds: int) -> Result:
    """No address in a request is connected to."""
    tally = Tally()
    with rig.server("fake") as server, socket.create_server(("127.0.0.1", 0)) as canary:
        canary.setblocking(False)
        url = f"http://127.0.0.1:{canary.getsockname()[1]}/x.png"
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "a"}]
        requests: list[tuple[str, dict[str, Any]]] = [
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": parts}]}),
            ("/v1/completions", {"prompt": url, "webhook": url, "callback": url, "max_tokens": 1}),
            ("/v1/internal/model/load", {"llm_model_name": url}),
            ("/v1/internal/model/load", {"llm_model_name": "fake", "model_path": url}),
            ("/v1/completions", {"prompt": "k", "adapter": url, "max_tokens": 1}),
        ]
        for _ in range(rounds):
            for path, request in requests:
                answer = server.post(path, request)
                tally.check(answer.status_code < 500, f"{path}: {answer.status_code}")
                tally.rounds += 1
        try:
            canary.accept()
            tally.check(False, "a connection was made")
        except BlockingIOError:
            pass
    return tally.result()


# S13.


def slow_patterns(rig: Rig, rounds: int) -> Result:
    """Each regular expression of the product, used as there, on strings that may be slow."""
    tally = Tally()
    uses = _uses()
    for pattern, flags, method in sorted(uses):
        act = getattr(re.compile(pattern, flags), method)
        for text in _LONG:
            start = time.thread_time()
            act("", text) if method == "sub" else act(text)
            tally.note("longest match", 1000 * (time.thread_time() - start), 50.0, "ms")
            tally.rounds += 1
    return tally.result(f"{len(uses)} uses")


_METHODS = frozenset("fullmatch match search sub split findall finditer".split())
_LONG = (
    "a" * 100_000 + "!",
    "-" * 100_000,
    "0" * 100_000 + "x",
    "<" * 100_000,
    " " * 100_000 + "x",
    "a-" * 50_000,
    "model-00001-of-" * 7000,
    "{{" * 50_000,
)


def _uses() -> set[tuple[str, int, str]]:
    """Pattern, flags and method of each use of ``re`` in the product."""
    found: set[tuple[str, int, str]] = set()
    for folder in ("api", "jobs", "workers"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= _uses_in(ast.parse(path.read_text()))
    return found


def _uses_in(tree: ast.AST) -> set[tuple[str, int, str]]:
    """The uses in one module: of ``re`` itself, and of a compiled constant."""
    compiled: dict[str, tuple[str, int]] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call() as call):
                if _method(call) == ("re", "compile") and (pattern := _pattern(call)):
                    compiled[name] = pattern
    found = set()
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        owner, method = _method(call)
        pattern = _pattern(call) if owner == "re" else compiled.get(owner)
        if method in _METHODS and pattern is not None:
            found.add((*pattern, method))
    return found


def _method(call: ast.Call) -> tuple[str, str]:
    match call.func:
        case ast.Attribute(value=ast.Name(id=owner), attr=method):
            return owner, method
    return "", ""


def _pattern(call: ast.Call) -> tuple[str, int] | None:
    """The pattern, if it is a literal, and its flags."""
    match call.args:
        case [ast.Constant(value=str(text)), *more]:
            given = [*more, *(keyword.value for keyword in call.keywords)]
            parts = (part for one in given for part in ast.walk(one))
            flags = [part.attr for part in parts if isinstance(part, ast.Attribute)]
            return text, sum(int(getattr(re, flag, 0)) for flag in flags)
    return None


# S15.


def cross_talk(rig: Rig, rounds: int) -> Result:
    """Each stream has its own numbers; clients connect, disconnect and lose Redis."""
    tally = Tally()
    num_tokens = 0
    with remote_server(MGS_SLOTS="32", MGS_MAX_QUEUED_PER_MODEL="20000") as remote:
        server = remote.server
        server.load("fake-5ms")
        undisturbed = [answer.text for answer in read_all(server.port, _TAGGED)]
        tally.check(len(set(undisturbed)) == len(_TAGGED), "the texts are not different")
        with cutting(remote, rig, mean_s=1.0):
            for _ in range(rounds):
                num_tokens += asyncio.run(_compare(server.port, undisturbed, rig, tally))
                tally.rounds += 1
    return tally.result(f"{num_tokens} tokens in {len(_TAGGED)} streams at once")


# Prompts of different lengths, so that no two of them count through the same numbers.
_TAGGED = [body(512 * block + 64 * part, 60) for block in range(12) for part in range(1, 7)]


async def _compare(port: int, undisturbed: list[str], rig: Rig, tally: Tally) -> int:
    places = [rig.random.choice([None, None, 3]) for _ in _TAGGED]
    tasks = [
        read_stream(port, request, leave_after=place)
        for request, place in zip(_TAGGED, places, strict=True)
    ]
    answers = await asyncio.gather(*tasks)
    for text, place, answer in zip(undisturbed, places, answers, strict=True):
        tally.check(text.startswith(answer.text), f"{answer.text!r} instead of {text!r}")
        is_whole = answer.text == text or place is not None or answer.status == 503
        tally.check(is_whole, f"{answer.status} {answer.code!r} {answer.text!r}")
    return sum(len(answer.text) for answer in answers)


# S16.

_FIXED = {
    "jinja2": (3, 1, 6),
    "llama-cpp-python": (0, 3, 36),
    "mlx-lm": (0, 32, 2),
    "redis": (8, 1, 0),
    "rq": (3, 0, 0),
    "starlette": (0, 49, 1),
}


def versions(rig: Rig, rounds: int) -> Result:
    """No version with a known critical vulnerability; the lock file has hashes."""
    tally = Tally()
    for name, least in _FIXED.items():
        found = tuple(int(part) for part in re.findall(r"\d+", version(name))[:3])
        tally.check(found >= least, f"{name} {found}")
        tally.rounds += 1
    lock = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^[a-z0-9_.\[\]-]+==", lock, re.MULTILINE | re.IGNORECASE)
    tally.check(lock.count("--hash=") >= len(pins) > 0, "the lock file has no hashes")
    redis = _redis_version()
    is_fixed = any(low <= redis < high for low, high in _REDIS_FIXED)
    tally.check(is_fixed, f"the Redis server here is {'.'.join(map(str, redis))}")
    return tally.result()


# CVE-2025-49844 and similar: code execution through Lua scripts.
_REDIS_FIXED = (
    ((6, 2, 20), (6, 3, 0)),
    ((7, 2, 11), (7, 3, 0)),
    ((7, 4, 6), (7, 5, 0)),
    ((8, 0, 4), (99, 0, 0)),
)


def _redis_version() -> tuple[int, ...]:
    from jobs.embedded_redis.binary import find_redis_binary

    output = subprocess.run([find_redis_binary().path, "--version"], capture_output=True, text=True)
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", output.stdout)
    assert found is not None, output.stdout
    return tuple(int(part) for part in found.groups())


RUNS = {
    "S3": Run(keys, full=5, fast=1),
    "S4": Run(open_without_key, full=5, fast=1),
    "S5": Run(foreign_pages, full=5, fast=1),
    "S6": Run(names_elsewhere, full=5, fast=1),
    "S7": Run(foreign_jobs, full=200, fast=10),
    "S10": Run(canaries, full=50, fast=2),
    "S11": Run(other_users, full=1, fast=1),
    "S12": Run(addresses, full=10, fast=1),
    "S13": Run(slow_patterns, full=1, fast=1),
    "S15": Run(cross_talk, full=100, fast=1),
    "S16": Run(versions, full=1),
}
