"""Random JSON schemas."""

from __future__ import annotations

import random
from typing import Any

Schema = dict[str, Any]


class SchemaMaker:
    """Schemas of objects: nested, arrays, enums, references, bounded numbers, and unusual ones."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._num_refs = 0

    def schema(self) -> Schema:
        properties = {f"p{n}": self._value(depth=2) for n in range(self._rng.randint(1, 4))}
        required = [key for key in properties if self._rng.random() < 0.7]
        whole = self._object(properties, required)
        if self._num_refs:
            leaf = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}}
            whole["$defs"] = {"leaf": {**leaf, "required": ["n"], "additionalProperties": False}}
        if self._rng.random() < 0.1:
            whole[self._rng.choice(["not", "dependentRequired", "propertyNames"])] = {}
        return whole

    def _object(self, properties: Schema, required: list[str]) -> Schema:
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    def _value(self, depth: int) -> Schema:
        kinds = [self._integer, self._number, self._text, self._enum, self._flag, self._ref]
        if depth:
            kinds += [lambda: self._array(depth), lambda: self._nested(depth), self._either]
        return self._rng.choice(kinds)()

    def _integer(self) -> Schema:
        low = self._rng.randint(-1000, 1000)
        return {"type": "integer", "minimum": low, "maximum": low + self._rng.randint(0, 500)}

    def _number(self) -> Schema:
        low = round(self._rng.uniform(-10, 10), 2)
        if self._rng.random() < 0.5:
            return {"type": "number", "exclusiveMinimum": low, "maximum": low + 5.25}
        return {"type": "number", "minimum": low, "exclusiveMaximum": low + 0.5}

    def _text(self) -> Schema:
        """Always with a maximum length: else a model may write until its context is full."""
        size = self._rng.randint(1, 12)
        plain = {"maxLength": size, "minLength": self._rng.choice([0, size // 2])}
        pattern, date = {"pattern": "^[a-c]{1,4}-[0-9]{2}$"}, {"format": "date"}
        return {"type": "string", **self._rng.choice([plain, plain, pattern, date])}

    def _enum(self) -> Schema:
        values = ["a", "B c", 'quo"te', "é", 1, -2.5, None, True]
        return {"enum": self._rng.sample(values, self._rng.randint(1, 4))}

    def _flag(self) -> Schema:
        return {"type": self._rng.choice(["boolean", "null", ["integer", "boolean"]])}

    def _ref(self) -> Schema:
        self._num_refs += 1
        return {"$ref": "#/$defs/leaf"}

    def _either(self) -> Schema:
        return {"anyOf": [self._value(0), self._value(0)]}

    def _array(self, depth: int) -> Schema:
        least = self._rng.randint(0, 2)
        bounds = {"minItems": least, "maxItems": least + self._rng.randint(0, 2)}
        return {"type": "array", "items": self._value(depth - 1), **bounds}

    def _nested(self, depth: int) -> Schema:
        properties = {f"q{n}": self._value(depth - 1) for n in range(self._rng.randint(0, 3))}
        return self._object(properties, [key for key in properties if self._rng.random() < 0.5])
