"""JSON schemas as far as grammars can hold them: what only narrows and cannot be held is left out.

Pure: the worker leaves it out, and the API says so before the answer begins.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from jobs.contract.date_patterns import DATE_PATTERNS

_LEFT_OUT = frozenset({
    "uniqueItems", "propertyNames", "not", "if", "then", "else", "contains", "minContains",
    "maxContains", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedItems",
    "unevaluatedProperties", "$dynamicRef", "$recursiveRef",
})  # fmt: skip
_FORMATS = frozenset({
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
    "unknown",
})  # fmt: skip
_ONE = ("items", "additionalProperties", "additionalItems")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
# What the engine of regular expressions does not know: looking around and back.
_UNKNOWN_PATTERN = re.compile(r"\(\?[=!]|\(\?<[=!]|\\[1-9]|\(\?[>P]|[*+?}]\+")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_MAX_STEPS = 128  # of a path
_EXACT = 1 << 53  # the compiler of grammars takes numbers for floats

Schema = dict[str, Any]
Path = tuple[str | int, ...]


class Loosened(NamedTuple):
    """A schema that can be held, and the places of the keywords that were left out of it.

    Places are JSON pointers (RFC 6901) into the given schema, sorted; each ends with its keyword.
    """

    schema: Schema
    places: list[str]


def loosen(schema: Any, *, is_exact: bool = False) -> Loosened:
    """What of the schema can be held. What is no schema at all stays as it is.

    ``is_exact``: the caller holds lists of large integers itself.
    """
    left_out: set[Path] = set()
    if not is_exact:
        schema = _without_large(schema, left_out, ())
    if schema is True:
        return Loosened({}, [])
    if not isinstance(schema, dict):
        return Loosened(schema, [])
    if _is_circle(schema, schema):
        schema = {key: value for key, value in schema.items() if key != "$ref"}
        left_out.add(("$ref",))
    held = _loosened(schema, schema, left_out, ())
    return Loosened(held, sorted(map(_pointer, left_out)))


def _pointer(path: Path) -> str:
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)


def _loosened(schema: Any, root: Schema, left_out: set[Path], path: Path) -> Any:
    if not isinstance(schema, dict) or len(path) > _MAX_STEPS:
        return schema
    kept: Schema = {}
    for key, value in schema.items():
        if _is_held(key, value, schema, root):
            kept[key] = _inner(key, value, root, left_out, (*path, key))
        elif value is not False:
            left_out.add((*path, key))
    if (known := DATE_PATTERNS.get(str(kept.get("format")))) and "pattern" not in kept:
        kept["pattern"] = f"^{known}$"  # the compiler's own has 31 days in each month
    if isinstance(kept.get("oneOf"), list) and not _is_disjoint(kept["oneOf"], root):
        left_out.add((*path, "oneOf"))
    if isinstance(kept.get("oneOf"), list) and "anyOf" not in kept:
        kept["anyOf"] = kept.pop("oneOf")
    return kept


def _is_held(key: str, value: Any, schema: Schema, root: Schema) -> bool:
    if key == "not" and value in ({}, True):
        return True  # nothing fits: the compiler refuses it
    if key in _LEFT_OUT:
        return False
    if key == "format" and isinstance(value, str):
        return value in _FORMATS
    if key == "pattern" and isinstance(value, str):
        return not _UNKNOWN_PATTERN.search(value)
    if key == "patternProperties" and isinstance(value, dict):
        return not any(map(_UNKNOWN_PATTERN.search, value))
    if key == "$ref":
        return not _is_circle(schema, root)
    if key in ("minProperties", "maxProperties"):
        return not set(schema.get("properties") or ()) - set(schema.get("required") or ())
    return True


def without_large(schema: Any) -> Any:
    """The schema without lists of integers that its compiler would round."""
    return _without_large(schema, set(), ())


def _without_large(schema: Any, left_out: set[Path], path: Path) -> Any:
    if isinstance(schema, list):
        return [_without_large(one, left_out, (*path, n)) for n, one in enumerate(schema)]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if not _lists_large(key, value)}
    left_out |= {(*path, key) for key in schema.keys() - kept.keys()}
    return {key: _without_large(value, left_out, (*path, key)) for key, value in kept.items()}


def _lists_large(key: str, value: Any) -> bool:
    if key == "const":
        return is_large(value)
    return key == "enum" and isinstance(value, list) and any(map(is_large, value))


def is_large(value: Any) -> bool:
    """Whether it is an integer that a float would change."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return is_integer and abs(value) > _EXACT


def _inside(bound: int, *, is_least: bool) -> float:
    """The next bound that is exact as a float, and no wider."""
    near = float(bound)
    is_wider = near < bound if is_least else near > bound
    return math.nextafter(near, math.inf if is_least else -math.inf) if is_wider else near


def _inner(key: str, value: Any, root: Schema, left_out: set[Path], path: Path) -> Any:
    def go(one: Any, *steps: str | int) -> Any:
        return _loosened(one, root, left_out, (*path, *steps))

    if key in _BOUNDS and is_large(value):
        return _inside(value, is_least="min" in key.lower())
    if key in _MAPS and isinstance(value, dict):
        return {name: go(one, name) for name, one in value.items()}
    if key in _LISTS and isinstance(value, list):
        return [go(one, number) for number, one in enumerate(value)]
    return go(value) if key in _ONE else value


def _is_circle(schema: Any, root: Schema) -> bool:
    """Whether the references at the schema's top lead back to themselves and say nothing."""
    seen: list[Any] = []
    while isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        if any(schema is one for one in seen):
            return True
        seen.append(schema)
        schema = target_of(schema["$ref"], root)
    return False


def target_of(reference: str, root: Any) -> Any:
    """What a reference inside the document means; ``None`` for one that leads nowhere."""
    if not reference.startswith("#"):
        return None
    found = root
    for step in reference[1:].split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdigit() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, dict):
            found = found.get(key)
        else:
            return None
    return found


def _is_disjoint(branches: list[Any], root: Schema) -> bool:
    """Whether no value can have two of the schemas, as far as types and constants tell."""
    found = [_resolved(one, root) for one in branches]
    pairs = ((a, b) for n, a in enumerate(found) for b in found[n + 1 :])
    return all(_are_apart(a, b, root) for a, b in pairs)


def _are_apart(one: Schema, other: Schema, root: Schema) -> bool:
    types = _types(one), _types(other)
    if all(types) and not types[0] & types[1]:
        return True
    choices = _choices(one), _choices(other)
    if None not in choices:
        return not any(
            a == b and type(a) is type(b) for a in choices[0] or () for b in choices[1] or ()
        )
    shared = set(one.get("required") or ()) & set(other.get("required") or ())
    return any(_differ(_property(one, key, root), _property(other, key, root)) for key in shared)


def _differ(one: Schema, other: Schema) -> bool:
    first, second = _choices(one), _choices(other)
    return first is not None and second is not None and not any(a in second for a in first)


def _property(schema: Schema, key: str, root: Schema) -> Schema:
    properties = schema.get("properties")
    return _resolved(properties.get(key), root) if isinstance(properties, dict) else {}


def _resolved(schema: Any, root: Schema) -> Schema:
    if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        schema = target_of(schema["$ref"], root)
    return schema if isinstance(schema, dict) else {}


def _choices(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema["enum"] if isinstance(schema.get("enum"), list) else None


def _types(schema: Schema) -> frozenset[str]:
    given = schema.get("type")
    names = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    found = frozenset(str(name) for name in names)
    return found | {"integer"} if "number" in found else found
