"""What a schema says of a text, as a regular expression for texts that stand bare."""

from __future__ import annotations

import re
from typing import Any

from jobs.contract.date_patterns import DATE_PATTERNS

_BYTE = "(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_FORMATS = {
    **DATE_PATTERNS,
    "uuid": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "ipv4": rf"(?:{_BYTE}\.){{3}}{_BYTE}",
    "email": r"[A-Za-z0-9._%+\-]{1,64}@[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63}){1,4}",
}
_MAX_LENGTH = 2000  # longer bounds cost too much to count


def text_pattern(schema: dict[str, Any]) -> str:
    """``.*``, where the schema says nothing that can be held of a bare text."""
    if (pattern := _of_pattern(schema.get("pattern"))) is not None:
        return pattern
    if (known := _FORMATS.get(str(schema.get("format")))) is not None:
        return known
    least, most = _bound(schema.get("minLength")) or 0, _bound(schema.get("maxLength"))
    if most is not None and most <= _MAX_LENGTH and least <= most:
        return f".{{{least},{most}}}"
    return f".{{{least},}}" if 0 < least <= _MAX_LENGTH else ".*"


def _bound(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _of_pattern(pattern: Any) -> str | None:
    """A pattern is searched for; anchors count at its ends only."""
    if not isinstance(pattern, str):
        return None
    begins, ends = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith(r"\$")
    inner = pattern[begins : len(pattern) - ends]
    plain = re.sub(r"\\.|\[\^?\]?[^\]]*\]", "", inner)
    is_split = "|" in re.sub(r"\([^()]*\)", "", plain) and (begins or ends)
    if is_split or re.search(r"[\^$]|\(\?[=!<]|\\[1-9bB]", plain) or not _compiles(inner):
        return None
    inner = re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", inner)
    return f"{'' if begins else '.*'}(?-s:{inner}){'' if ends else '.*'}"


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
