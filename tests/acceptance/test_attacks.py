"""The sixteen attacks of the fault catalogue's group S on a running server; all are refused."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pickle
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs.contract.errors import InvalidRequestError, ModelLoadError
from tests.helpers.server import ROOT, Server, make_server
from tests.helpers.waiting import wait_until
from workers.text.templates.chat_template import ChatTemplate

pytestmark = pytest.mark.timeout(180)

USER, MANAGER = "user-key-of-this-test", "manager-key-of-this-test"
CHAT = "/v1/chat/completions"
SECRET = "canary-1f9c7d"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


class Target:
    """The server under attack, with an address that nobody may call and a file nobody may write."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.canary = folder / "canary"
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.worker_pid = int(self.entry()["process_id"])

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/"

    def entry(self) -> dict[str, Any]:
        answer = self.request("GET", "/management/processes", key=MANAGER)
        return dict(answer.json()["processes"][0])

    def request(self, method: str, path: str, key: str = USER, **fields: Any) -> httpx.Response:
        headers = {"X-Api-Key": key, **fields.pop("headers", {})}
        url = self.server.url + path
        return httpx.request(method, url, headers=headers, timeout=60, **fields)

    def chat(self, **fields: Any) -> httpx.Response:
        return self.request("POST", CHAT, json={**HELLO, **fields})

    def redis(self) -> Redis:
        return Redis.from_url(self.server.redis_url, protocol=2)

    def check_unharmed(self) -> None:
        """Nothing was executed, nobody was called, the worker is the same and serves."""
        assert not self.canary.exists()
        with pytest.raises(BlockingIOError):
            self.listener.accept()
        assert self.chat().status_code == 200
        assert int(self.entry()["process_id"]) == self.worker_pid


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    server = make_server(MGS_API_KEY=USER, MGS_MANAGEMENT_KEY=MANAGER)
    server.is_ready = lambda: _is_ready(server)  # type: ignore[method-assign]
    server.start_all()
    body = {"llm_model_name": "fake"}
    headers = {"X-Api-Key": MANAGER}
    url = f"{server.url}/v1/internal/model/load"
    assert httpx.post(url, json=body, headers=headers, timeout=60).status_code == 200
    found = Target(server, tmp_path_factory.mktemp("attacks"))
    yield found
    found.listener.close()
    server.stop()


def _is_ready(server: Server) -> bool:
    try:
        url, headers = f"{server.url}/health/ready", {"X-Api-Key": USER}
        return httpx.get(url, headers=headers, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


class _Touch:
    """Pickled, it writes the canary when it is read."""

    def __init__(self, canary: Path) -> None:
        self._command = f"touch {canary}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self._command,)


def _forge(target: Target, job_id: str, function: str, **fields: Any) -> None:
    """A job on the queue that our API has never seen."""
    with target.redis() as redis:
        args = (f"touch {target.canary}",)
        job = Job.create(
            function, args=args, id=job_id, connection=redis, serializer=JSONSerializer, timeout=-1
        )
        job.origin = "mgs-gen-0"
        job.save()
        if fields:
            redis.hset(job.key, mapping=fields)
        redis.rpush("rq:queue:mgs-gen-0", job_id)


def forged_jobs(target: Target) -> None:
    """S1: functions, callbacks and webhooks of a job that somebody wrote into Redis."""
    functions = [
        "os.system",
        "builtins.eval",
        "jobs.storage.store.JobStore",
        "workers.supervision.supervisor.main",
    ]
    for number, function in enumerate([*functions, "mgs.generate", "mgs.unload"]):
        _forge(
            target,
            f"forged-{number}",
            function,
            success_callback_name="os.getpid",
            failure_callback_name="os.getpid",
            stopped_callback_name="os.getpid",
            webhooks=json.dumps([{"url": target.address, "events": ["finished", "failed"]}]),
        )
    _wait_drained(target)


def _wait_drained(target: Target) -> None:
    with target.redis() as redis:
        lists = ("rq:queue:mgs-gen-0", "rq:queue:mgs-gen-0:intermediate")
        wait_until(lambda: not any(redis.llen(name) for name in lists), "the queue is drained")


def pickles(target: Target) -> None:
    """S2: a pickle wherever RQ's own serializer would read one."""
    evil = pickle.dumps(_Touch(target.canary))
    for field in ("data", "meta", "result", "exc_info"):
        _forge(target, f"pickled-{field}", "mgs.generate", **{field: evil})
    _wait_drained(target)
    for field in ("data", "meta", "result", "exc_info"):
        assert target.request("GET", f"/v1/jobs/pickled-{field}").status_code == 404
    assert target.request("GET", "/v1/jobs").status_code == 200


def wrong_keys(target: Target) -> None:
    """S3: no, wrong, empty or endless keys, and one in the query: all the same answer."""
    bodies = set()
    for key in ("", "wrong", USER[:-1], USER + "x", "k" * 10_000, "Bearer"):
        answer = target.request("GET", "/v1/models", key=key)
        assert answer.status_code == 401, key
        bodies.add(answer.content)
    answer = httpx.get(f"{target.server.url}/v1/models?api_key={USER}")
    assert answer.status_code == 401
    assert {answer.content} == bodies
    for path in ("/v1/internal/model/load", "/v1/internal/model/unload"):
        assert target.request("POST", path, json={}).status_code == 403
    assert target.request("GET", "/management/processes").status_code == 403


def open_listening(target: Target) -> None:
    """S4: on all addresses without a key nothing starts, and one line says why."""
    kept = {k: v for k, v in target.server.env.items() if k != "MGS_API_KEY"}
    for module in ("api", "workers.supervision.supervisor"):
        ended = subprocess.run(
            [sys.executable, "-m", module],
            env={**kept, "MGS_HOST": "0.0.0.0"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ended.returncode != 0
        assert len(ended.stderr.strip().splitlines()) == 1
        assert "MGS_API_KEY" in ended.stderr


def foreign_pages(target: Target) -> None:
    """S5: DNS rebinding, other sites' pages, forms."""
    hosts = ["evil.example", "localhost.evil.example", "127.0.0.1.nip.example", "0.0.0.0", ""]
    for host in hosts:
        assert target.request("GET", "/v1/models", headers={"Host": host}).status_code == 421
    for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
        fields = {"headers": {"Origin": origin, "Content-Type": "text/plain"}}
        answer = target.request("POST", CHAT, content=json.dumps(HELLO), **fields)
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    assert target.request("OPTIONS", CHAT, headers=preflight).status_code == 403


def names_that_point_elsewhere(target: Target) -> None:
    """S6: model names and ids as paths, or as something Redis or RQ would read otherwise."""
    outside = target.server.folder / "models" / "outside"
    if not outside.exists():
        outside.symlink_to("/etc")
    model_names = [
        "../../etc/passwd", "/etc/passwd", "~/x", "%2e%2e/x", "a\x00b", "x" * 10_000,
        "outside/passwd", "..", ".", "", "fa\u212ae", "demo/../demo", "demo\n", "file:///etc/passwd",
    ]  # fmt: skip
    for name in model_names:
        body = {"llm_model_name": name}
        answer = target.request("POST", "/v1/internal/model/load", key=MANAGER, json=body)
        assert 400 <= answer.status_code < 500, (name, answer.text)
        assert "root:" not in answer.text
    ids = [b"../0", b"a:intermediate", b"0,1", b"x" * 10_000, b"\xff\xfe", b"0\t1", b"*"]
    for model_id in ids:
        headers = {"X-Model-Id": model_id}
        answer = target.request("GET", "/v1/internal/model/info", headers=headers)
        assert 400 <= answer.status_code < 500, model_id
    for path in ("..%2f..%2fetc%2fpasswd", "%00", "..", "x" * 5000):
        answer = target.request("GET", f"/v1/internal/model/info/{path}")
        assert 400 <= answer.status_code < 500, path


def foreign_job_ids(target: Target) -> None:
    """S7: ids are 128 random bits, and one that is not there says no more than that."""
    ids = [target.chat().json()["id"] for _ in range(20)]
    assert len(set(ids)) == 20
    assert all(re.fullmatch(r"chatcmpl-[0-9a-f]{32}", job_id) for job_id in ids)
    changed = ids[0][:-1] + ("0" if ids[0][-1] != "0" else "1")
    for job_id in (changed, "chatcmpl-" + "0" * 32, "*", "forged-0", "%2e%2e", "a" * 5000):
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
            answer = target.request(method, f"/v1/jobs/{job_id}{path}")
            assert answer.status_code == 404, (method, job_id, answer.text)
    for key in ("", "wrong"):
        assert target.request("GET", f"/v1/jobs/{ids[0]}", key=key).status_code == 401


def _call_of_the_shell(target: Target) -> str:
    call = f"cycler.__init__.__globals__.os.system('touch {target.canary}')"
    return "{{ " + call + " }}"


def chat_templates(target: Target) -> None:
    """S8: a template that comes with a model's files may neither reach out nor run on."""
    hostile = [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        _call_of_the_shell(target),
        "{{ messages.__class__ }}",
        "{% for a in range(999999999) %}{% for b in range(999999999) %}x{% endfor %}{% endfor %}",
        "{{ 'x' * 9999999999 }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{% include '/etc/passwd' %}",
    ]
    for source in hostile:
        start = time.monotonic()
        with contextlib.suppress(ModelLoadError, InvalidRequestError):
            text = ChatTemplate(source).render([{"role": "user", "content": "x"}])
            assert not text.strip(), source
        assert time.monotonic() - start < 5


def templates_in_requests(target: Target) -> None:
    """S9: what a request says of templates, adapters and paths is ignored or refused."""
    evil = _call_of_the_shell(target)
    for fields in (
        {"chat_template": evil},
        {"chat_template_kwargs": {"add_generation_prompt": evil}},
        {"adapters": "../../etc"},
        {"adapter": "../../etc"},
        {"draft_model": "/etc/passwd"},
        {"model_path": "/etc/passwd"},
    ):
        assert target.chat(**fields).status_code in (200, 400, 404), fields  # 404: no such adapter


def text_in_logs(target: Target) -> None:
    """S10: prompts are in no log and in nothing that RQ's tools show; no header breaks a line."""
    prompt = f"{SECRET}\nERROR forged line\x1b[31m"
    assert target.chat(messages=[{"role": "user", "content": prompt}]).status_code == 200
    refused = target.chat(messages=[{"role": SECRET, "content": 7}], user=SECRET)
    assert refused.status_code == 400
    target.request("GET", f"/v1/jobs/{SECRET}%0aERROR%20forged")
    for log in target.server.folder.glob("*.log"):
        text = log.read_text()
        assert SECRET not in text.replace("\n", ""), log
        assert USER not in text
        assert MANAGER not in text
        assert not [line for line in text.splitlines() if line.startswith("ERROR forged")]
    with target.redis() as redis:
        for key in redis.scan_iter("rq:job:*"):
            assert SECRET.encode() not in b"".join(redis.hvals(key)), key


def embedded_redis(target: Target) -> None:
    """S11: the embedded Redis is this user's alone, and on no port."""
    path = target.server.folder / "state" / "redis.sock"
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0
    launcher = psutil.Process(target.server.processes["redis"].pid)
    for process in launcher.children():
        assert not [c for c in process.net_connections("inet") if c.status == "LISTEN"]


def addresses(target: Target) -> None:
    """S12: no address in a request is ever called."""
    image = {"type": "image_url", "image_url": {"url": target.address}}
    for fields in (
        {"messages": [{"role": "user", "content": [image]}]},
        {"webhook": target.address},
        {"user": target.address, "metadata": {"callback": target.address}},
        {"tools": [{"type": "mcp", "server_url": target.address}]},
    ):
        assert target.chat(**fields).status_code in (200, 400), fields
    body = {"llm_model_name": target.address}
    answer = target.request("POST", "/v1/internal/model/load", key=MANAGER, json=body)
    assert answer.status_code in (400, 404)


def slow_patterns(target: Target) -> None:
    """S13: no text makes one of our regular expressions slow."""
    for text in ("a" * 100_000 + "!", "-" * 100_000 + "!", "1" * 100_000 + ".", "<|" * 50_000):
        start = time.monotonic()
        target.request("GET", "/v1/models", headers={"X-Model-Id": text[:30_000]})
        target.request("GET", f"/v1/jobs/{text[:5000].replace('<|', 'x')}")
        target.request("GET", "/v1/jobs", params={"cursor": text[:5000]})
        target.chat(model=text, stop=[text[:1000]])
        target.request("POST", "/v1/internal/token-count", json={"prompt": text})
        assert time.monotonic() - start < 2, text[:2]


def dashboard(target: Target) -> None:
    """S14: the dashboard changes nothing and answers to no foreign name."""
    if not all(importlib.util.find_spec(name) for name in ("rq_dashboard", "six")):
        pytest.skip("the extra 'dash' is not installed")
    from api.cli.dashboard import make_app

    pages = make_app(target.server.redis_url).test_client()
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert pages.open("/0/view/jobs", method=method).status_code in (403, 404, 405)
    for path in ("/requeue-all", "/queue/mgs-gen-0/empty", "/0/job/x/delete", "/job/x/requeue"):
        assert pages.get(path).status_code in (403, 404, 405)
    assert pages.get("/", base_url="http://evil.example").status_code in (400, 403, 421)


def cross_talk(target: Target) -> None:
    """S15: many at once, some of whom leave: nobody sees a character of another's answer.

    The fake engine counts positions, so that an answer's first number is its prompt's length.
    """
    counting = "".join(f"{number:07d} " for number in range(64))
    alone = _read_stream(target, 0, None)
    start = counting.index(alone)

    def read(number: int) -> tuple[int, str]:
        return number, _read_stream(target, number % 40, 40 if number % 5 == 0 else None)

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(read, range(200)))
    for number, text in answers:
        first = start + 8 * (number % 40)
        assert counting[first : first + len(text)] == text
        assert len(text) == 80 or number % 5 == 0


def _read_stream(target: Target, tag: int, leave_after: int | None) -> str:
    """The text of a prompt that is 8 * ``tag`` tokens longer; the client may leave early."""
    messages = [{"role": "user", "content": "x" * (8 + 8 * tag)}]
    body = {"stream": True, "max_tokens": 80, "temperature": 0, "messages": messages}
    text, ids, url = "", set(), target.server.url + CHAT
    with httpx.stream("POST", url, json=body, headers={"X-Api-Key": USER}, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line[6:])
                ids.add(chunk["id"])
                text += chunk["choices"][0]["delta"].get("content", "")
            if leave_after is not None and len(text) > leave_after:
                break
    assert len(ids) == 1
    return text


# Below these versions there are holes that the server's own use would reach.
_SAFE = {
    "jinja2": (3, 1, 6),  # CVE-2025-27516: out of the sandbox through |attr
    "starlette": (0, 49, 1),  # CVE-2025-62727: a Range header that costs quadratic time
    "h11": (0, 16, 0),  # CVE-2025-43859: chunked bodies read leniently
    "redis": (5, 0, 0),
}


def known_holes(target: Target) -> None:
    """S16: none of the libraries that face a client is of a version with a known critical hole."""
    for name, least in _SAFE.items():
        found = tuple(int(part) for part in re.findall(r"\d+", version(name))[:3])
        assert found >= least, (name, found)
    with target.redis() as redis:
        assert not [c for c in redis.acl_list() if "nopass" in c and "default" not in c]


ATTACKS: list[Callable[[Target], None]] = [
    forged_jobs, pickles, wrong_keys, open_listening, foreign_pages, names_that_point_elsewhere,
    foreign_job_ids, chat_templates, templates_in_requests, text_in_logs, embedded_redis, addresses,
    slow_patterns, dashboard, cross_talk, known_holes,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__doc__.split(":")[0])
def test_an_attack_is_refused(target: Target, attack: Callable[[Target], None]) -> None:
    attack(target)
    target.check_unharmed()
