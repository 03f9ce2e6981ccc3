"""Several hosts on one network, as network namespaces of this machine, whose links can fail.

Each host is a network namespace with an interface, connected to the others by a bridge in another
namespace. ``Host.cut`` detaches the host from the bridge: both ends of its connections see a link
that is up and delivers nothing, as behind a router without power. Linux and root only.

Nothing is left over, even after SIGKILL: a namespace exists as long as the process that holds it,
and every process ends with the thread that started it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.waiting import wait_until

_NEEDED = ("ip", "nsenter", "setpriv", "unshare")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_CLONE_NEWNET = 0x40000000
_BRIDGE = "bridge"
_WAIT_S = 20.0


def need_network() -> None:
    """Skip the test where no namespaces can be made; with ``CI`` set, fail it."""
    why = _why_not()
    if why and os.environ.get("CI"):
        pytest.fail(why)
    if why:
        pytest.skip(why)


def _why_not() -> str:
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    missing = [name for name in _NEEDED if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"network namespaces need the commands {missing} (packages iproute2, util-linux)"
    tried = subprocess.run([_tool("unshare"), "--net", "true"], capture_output=True, check=False)
    return tried.stderr.decode() if tried.returncode else ""


class _Namespace:
    """A network and host name namespace, held by a process."""

    def __init__(self, name: str) -> None:
        self.name = name
        holder = [_tool("unshare"), "--net", "--uts", "sh", "-c", "hostname $0; exec sleep inf"]
        self._holder = subprocess.Popen([*_ends_with_us(), *holder, name])
        wait_until(self._is_apart, f"the namespace {name} is there")
        self.call("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        return self._holder.pid

    def command(self, *words: str) -> list[str]:
        """The command that runs ``words`` in the namespace."""
        return [_tool("nsenter"), "--target", str(self.pid), "--net", "--uts", "--", *words]

    def call(self, program: str, *words: str) -> None:
        """Run a short command in the namespace; it must succeed."""
        command = self.command(_tool(program), *words)
        done = subprocess.run(command, capture_output=True, check=False, timeout=_WAIT_S)
        assert done.returncode == 0, f"{program} {words}: {done.stderr.decode()}"

    def close(self) -> None:
        _end(self._holder)

    def _is_apart(self) -> bool:
        assert self._holder.poll() is None, f"the holder of {self.name} has ended"
        return os.readlink(f"/proc/{self.pid}/ns/net") != os.readlink("/proc/self/ns/net")


class Host(_Namespace):
    """One host. ``address``: for the other hosts; ``127.0.0.1`` is only the host itself."""

    def __init__(self, name: str, number: int, middle: _Namespace) -> None:
        super().__init__(name)
        self.address = f"10.77.0.{number}"
        self._middle = middle
        self._port = f"port{number}"
        self._started: list[subprocess.Popen[bytes]] = []
        peer = ("peer", "name", "eth0", "netns", str(self.pid))
        middle.call("ip", "link", "add", self._port, "type", "veth", *peer)
        self.restore()
        middle.call("ip", "link", "set", self._port, "up")
        self.call("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.call("ip", "link", "set", "eth0", "up")

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process on this host. It is ended with the network at the latest."""
        process = subprocess.Popen([*_ends_with_us(), *self.command(*command)], **options)
        self._started.append(process)
        return process

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Within the block, the calling thread is on this host. Its new sockets stay there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            _move_thread(there)
            yield
        finally:
            _move_thread(home)
            os.close(home)
            os.close(there)

    def cut(self) -> None:
        """Drop all packets to and from this host; its interface stays up."""
        self._middle.call("ip", "link", "set", self._port, "nomaster")

    def restore(self) -> None:
        """End of ``cut``."""
        self._middle.call("ip", "link", "set", self._port, "master", _BRIDGE)

    def close(self) -> None:
        for process in self._started:
            _end(process)
        super().close()


@contextmanager
def network(*names: str) -> Iterator[list[Host]]:
    """Hosts of these names, connected to each other, until the end of the block."""
    need_network()
    middle = _Namespace("middle")
    hosts: list[Host] = []
    try:
        middle.call("ip", "link", "add", _BRIDGE, "type", "bridge")
        middle.call("ip", "link", "set", _BRIDGE, "up")
        for number, name in enumerate(names, 1):
            hosts.append(Host(name, number, middle))
        yield hosts
    finally:
        for namespace in (*hosts, middle):
            namespace.close()


def _tool(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    assert found is not None, f"{name} is missing"
    return found


def _ends_with_us() -> list[str]:
    return [_tool("setpriv"), "--pdeathsig", "KILL", "--"]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(_WAIT_S)


def _move_thread(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns", str(Path(f"/proc/self/fd/{namespace}")))
