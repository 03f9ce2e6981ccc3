"""A receiver of webhooks on a loopback port, whose answers a test decides."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tests.helpers.waiting import wait_until


class Received(NamedTuple):
    """One request that came in."""

    path: str
    headers: dict[str, str]
    body: bytes


Reply = tuple[int, Mapping[str, str]]


class Receiver:
    """Keeps what arrives. ``answer`` decides the reply to each request, in a thread of its own."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server
        self.port = port = server.server_address[1]
        self.url = f"http://127.0.0.1:{port}/hook"
        self.requests: list[Received] = []
        self.answer: Callable[[Received], Reply] = lambda received: (204, {})

    def serve_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on; the handshake is part of reading a request."""
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )

    def wait_for(self, num: int = 1) -> list[Received]:
        """The requests, once there are so many."""
        wait_until(lambda: len(self.requests) >= num, f"{num} webhooks")
        return list(self.requests)

    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.requests]


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """A receiver that answers 204 unless told otherwise."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["content-length"])
            headers = {name.lower(): value for name, value in self.headers.items()}
            received = Received(self.path, headers, self.rfile.read(size))
            receiver.requests.append(received)
            status, headers_of_answer = receiver.answer(received)
            self.send_response(status)
            for name, value in headers_of_answer.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *args: Any) -> None:
            pass  # a sender that was killed leaves a broken connection

    server = Server(("127.0.0.1", port), Handler)
    receiver = Receiver(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
