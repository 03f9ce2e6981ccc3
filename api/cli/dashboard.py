"""rq-dashboard: read-only, on loopback, every page with the JSON serializer.

This corrects three faults of rq-dashboard 0.9.0: it lists workers with the pickle serializer
regardless of its configuration, which fails as soon as a worker is busy; it opens a connection per
request; and a GET from any web page can requeue jobs.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import RedisError
from rq.job import Job
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker, Worker

from api.cli.client import CliError
from jobs.embedded_redis.launcher import without_password
from jobs.settings import Settings
from jobs.stop_signal import StopSignal
from jobs.storage.connection import connect

if TYPE_CHECKING:
    from flask import Flask, Response

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
_HIDE_BUTTONS = (
    b"<style>[data-role=requeue-job-btn],#requeue-job-btn,#requeue-all-btn"
    b"{display:none!important}</style></head>"
)


class JsonWorker(Worker):
    """Lists workers whose jobs are JSON."""

    @classmethod
    def all(
        cls,
        connection: Redis | None = None,
        job_class: type[Job] | None = None,
        queue_class: type[Queue] | None = None,
        queue: Queue | None = None,
        serializer: Any = JSONSerializer,
    ) -> list[BaseWorker]:
        """As RQ's, with the JSON serializer."""
        return super().all(connection, job_class, queue_class, queue, serializer)


class JsonJob(Job):
    """Reads jobs that are JSON."""

    @classmethod
    def fetch(
        cls, id: str, connection: Redis | None = None, serializer: Any = JSONSerializer
    ) -> Job:
        """As RQ's, with the JSON serializer."""
        return super().fetch(id, connection, serializer)


def run_dashboard(settings: Settings, port: int) -> None:
    """Serve the dashboard on 127.0.0.1 until a signal."""
    if not all(importlib.util.find_spec(name) for name in ("rq_dashboard", "six")):
        raise CliError(
            "rq-dashboard is not installed: `make install-dev` in the project's folder, or "
            "`pip install rq-dashboard==0.9.0 six`"
        )
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    app = make_app(settings.effective_redis_url)
    try:
        server = make_server("127.0.0.1", port, app, threaded=True)
    except (OSError, SystemExit) as error:  # werkzeug exits when the port is taken
        raise CliError(f"port {port} is taken: choose another with --port") from error
    stop = StopSignal()
    threading.Thread(target=server.serve_forever, name="dashboard", daemon=True).start()
    print(f"dashboard (read-only): http://127.0.0.1:{server.port}", flush=True)
    stop.wait()
    server.shutdown()


def make_app(redis_url: str) -> Flask:
    """The dashboard as a Flask application."""
    import rq_dashboard.web
    from flask import request
    from rq_dashboard.cli import make_flask_app

    client = connect(redis_url)
    rq_dashboard.web.config.serializer = JSONSerializer
    rq_dashboard.web.Worker = JsonWorker
    rq_dashboard.web.Job = JsonJob
    rq_dashboard.web.from_url = lambda *_args, **_options: (None, client)
    app: Flask = make_flask_app(config=None, username=None, password=None, url_prefix="")
    app.config["RQ_DASHBOARD_REDIS_URL"] = (without_password(redis_url),)
    app.config["RQ_DASHBOARD_DISABLE_DELETE"] = True
    app.redis_conn = client  # type: ignore[attr-defined]

    @app.before_request
    def refuse_changes() -> tuple[str, int] | None:
        if urlsplit(f"//{request.host}").hostname not in _LOOPBACK_NAMES:
            return "The dashboard is only available on this machine.\n", 403
        if request.method not in ("GET", "HEAD") or request.path.startswith("/requeue/"):
            return "The dashboard is read-only.\n", 403
        return None

    @app.after_request
    def hide_buttons(response: Response) -> Response:
        if response.mimetype == "text/html":
            response.set_data(response.get_data().replace(b"</head>", _HIDE_BUTTONS))
        return response

    @app.errorhandler(RedisError)
    def redis_unavailable(_error: RedisError) -> tuple[str, int]:
        return "Redis does not answer.\n", 503

    return app
