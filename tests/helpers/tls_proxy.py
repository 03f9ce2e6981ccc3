"""A TLS proxy before a Redis server without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_START_S = 20.0


@contextmanager
def tls_proxy(upstream: Path, folder: Path) -> Iterator[str]:
    """A ``rediss://`` URL, with a self-signed certificate, that forwards to the unix socket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found = certificate(folder)
    context.load_cert_chain(found, folder / "key.pem")
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(str(upstream))
        await asyncio.gather(_copy(reader, up_writer), _copy(up_reader, writer))

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)

    thread = threading.Thread(target=loop.run_forever, name="tls-proxy", daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(_START_S)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={found}"
    finally:
        loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(_end_all(), loop).result(_START_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_START_S)
        loop.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def certificate(folder: Path) -> Path:
    """A self-signed certificate of 127.0.0.1; its key is ``key.pem`` beside it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("a certificate needs the command openssl")
    found = folder / "certificate.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split()
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(found)]
    subprocess.run([openssl, *words, *names, *files], check=True, capture_output=True)
    return found
