"""A way to Redis that swallows what is sent, while its ends still say that all is received."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.netns import Host as Place
from tests.helpers.tcp_proxy import TcpProxy


class PlaceProxy(TcpProxy):
    """A proxy on the loopback address of a place, to the socket of a Redis."""

    def __init__(self, upstream: Path, place: Place) -> None:
        super().__init__(upstream)
        self._place = place

    @property
    def listening_ports(self) -> set[int]:
        """The clients' ends of the connections that only listen to channels."""
        return {link._client_port for link in set(self.links) if link._is_pushing}

    def _run(self) -> None:
        with self._place.inside():
            super()._run()
