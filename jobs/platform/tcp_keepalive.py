"""Socket options by which the system notices a peer that is gone without a word."""

from __future__ import annotations

import math
import sys

_NAMES = {  # numbers: Python does not name all of them on each system
    # TCP_KEEPIDLE, TCP_KEEPINTVL (s), TCP_KEEPCNT, TCP_USER_TIMEOUT (ms)
    "linux": (4, 5, 6, 18),
    # TCP_KEEPALIVE, TCP_KEEPINTVL (s), TCP_KEEPCNT, TCP_RXT_CONNDROPTIME (s)
    "darwin": (0x10, 0x101, 0x102, 0x80),
}


def keepalive_options(
    idle_s: int, interval_s: int, count: int, unacknowledged_s: float
) -> dict[int, int]:
    """Options of ``IPPROTO_TCP`` -> values; empty on other systems.

    After ``idle_s`` the peer is probed each ``interval_s``, and is gone after ``count`` probes
    without an answer, or when sent data is not acknowledged for ``unacknowledged_s``.
    """
    names = _NAMES.get(sys.platform, ())
    is_in_ms = sys.platform == "linux"
    lost = int(unacknowledged_s * 1000) if is_in_ms else math.ceil(unacknowledged_s)
    return dict(zip(names, (idle_s, interval_s, count, lost), strict=False))
