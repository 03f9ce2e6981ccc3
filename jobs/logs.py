"""Logging for all processes: one line per record, a constant message with ids."""

from __future__ import annotations

import json
import logging
import sys

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """Formats ``time level logger: message key=value ...``, escaped so that it stays one line.

    A traceback follows on indented lines.
    """

    def format(self, record: logging.LogRecord) -> str:
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        parts = [f"{key}={json.dumps(value, default=str)}" for key, value in extra.items()]
        time = self.formatTime(record, "%H:%M:%S")
        message = _escape(record.getMessage())
        line = " ".join([f"{time} {record.levelname.lower()} {record.name}: {message}", *parts])
        if record.exc_info:
            lines = self.formatException(record.exc_info).split("\n")
            line += "".join("\n    " + _escape(text) for text in lines)
        return line


def _escape(text: str) -> str:
    """Escape characters that end a line or control a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def set_up_logging(level: str) -> None:
    """Log to stderr. ``level`` is for this product; libraries log from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("api", "jobs", "workers", "__main__"):
        logging.getLogger(name).setLevel(level.upper())
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
