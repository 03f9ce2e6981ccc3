"""Splits a byte stream into Redis' messages (RESP 2), for a proxy."""

from __future__ import annotations


def message_end(data: bytes | bytearray, start: int) -> int | None:
    """Index of the end of the message at ``start``; ``None`` while it is incomplete."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return None
    kind, end = data[start : start + 1], line_end + 2
    if kind in (b"+", b"-", b":"):
        return end
    count = int(data[start + 1 : line_end])
    if kind == b"$":
        return _within(data, end if count < 0 else end + count + 2)
    assert kind == b"*", bytes(data[start : start + 40])
    for _ in range(count):
        found = message_end(data, end)
        if found is None:
            return None
        end = found
    return end


def _within(data: bytes | bytearray, end: int) -> int | None:
    return end if end <= len(data) else None


def command_name(message: bytes) -> bytes:
    """The first word of a command, in capitals."""
    return message.split(b"\r\n", 3)[2].upper()


class Splitter:
    """Splits a stream of bytes into complete messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that ``data`` completes; the rest is buffered."""
        self._data += data
        messages: list[bytes] = []
        start = 0
        while start < len(self._data) and (end := message_end(self._data, start)) is not None:
            messages.append(bytes(self._data[start:end]))
            start = end
        del self._data[:start]
        return messages
