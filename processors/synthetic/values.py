"""Values that a JSON schema allows, drawn by chance, each kept to one side: what is measured on is never learned."""

from collections.abc import Mapping
from typing import Any
from zlib import crc32

from processors.synthetic import patterns, vocabulary
from processors.synthetic.lots import Lots
from processors.synthetic.saying import words_of

Json = dict[str, Any]
LEARNED, MEASURED = 0, 1
"""The two sides. A quarter of all values is measured with."""
TRIES = 200
FEW = 40
"""Whole numbers of so small a range stand on both sides: they would be too few on each."""
DEEPEST = 12
LONGEST_LIST = 3


class Unsatisfiable(ValueError):
    """No value that a schema allows, or none that is made here."""


def side_of(value: object) -> int:
    """By the value alone."""
    return MEASURED if crc32(str(value).encode()) % 4 == 0 else LEARNED


def is_open(schema: Json) -> bool:
    """Whether its values are so many that each stands on one side alone."""
    if "enum" in schema or "const" in schema:
        return False
    kind = kind_of(schema)
    if kind in ("integer", "number"):
        least, most = _bounds(schema)
        return kind == "number" or most - least >= FEW
    return kind == "string"


def kind_of(schema: Json) -> str:
    """The type that is drawn."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    if isinstance(kind, str):
        return kind
    return "object" if "properties" in schema else "array" if "items" in schema else "string"


def leaves(value: object, schema: Json, name: str = "") -> list[tuple[str, object, Json]]:
    """(name, value, schema) of each single value within: `address street` for what is nested."""
    if isinstance(value, dict):
        found = []
        for key, inner in value.items():
            below = schema.get("properties", {}).get(key, {})
            found += leaves(inner, below if isinstance(below, dict) else {}, f"{name} {key}".strip())
        return found
    return [(name, value, schema)]


class Drawing:
    """Of one tool's schema."""

    def __init__(self, root: Json, lots: Lots, side: int, optional: float = 0.5) -> None:
        self._root, self._lots, self._side, self._optional = root, lots, side, optional

    def arguments(self) -> Json:
        drawn = self.value(self._root, "arguments")
        if not isinstance(drawn, dict):
            raise Unsatisfiable("the arguments of a call are an object")
        return drawn

    def value(self, schema: object, name: str, depth: int = 0) -> Any:
        """Raises Unsatisfiable, with the name."""
        if schema is False or depth > DEEPEST:
            raise Unsatisfiable(f"{name!r} allows no value, or is deeper than {DEEPEST}")
        schema = self._resolved(schema if isinstance(schema, dict) else {}, name)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._one_of(schema, name)
        for word in ("oneOf", "anyOf"):
            if ways := schema.get(word):
                rest = {key: value for key, value in schema.items() if key != word}
                return self.value(rest | self._lots.one(ways), name, depth + 1)
        return self._sided(schema, name, depth)

    def _one_of(self, schema: Json, name: str) -> Any:
        if not schema["enum"]:
            raise Unsatisfiable(f"{name!r} has an empty enum")
        return self._lots.one(schema["enum"])

    def _sided(self, schema: Json, name: str, depth: int) -> Any:
        value = self._drawn(schema, name, depth)
        if not is_open(schema):
            return value
        for _ in range(TRIES):
            if side_of(value) == self._side:
                break
            value = self._drawn(schema, name, depth)
        return value

    def _drawn(self, schema: Json, name: str, depth: int) -> Any:
        match kind_of(schema):
            case "object":
                return self._object(schema, name, depth)
            case "array":
                return self._array(schema, name, depth)
            case "string":
                return self._text(schema, name)
            case "integer" | "number" as kind:
                return self._number(schema, name, kind == "integer")
            case "boolean":
                return self._lots.share(0.5)
            case "null":
                return None
            case kind:
                raise Unsatisfiable(f"{name!r} has the type {kind!r:.50}, which JSON schemas do not know")

    def _object(self, schema: Json, name: str, depth: int) -> Json:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if unknown := [each for each in required if each not in properties]:
            raise Unsatisfiable(f"{name!r} requires {unknown[0]!r}, which it does not describe")
        return {
            each: self.value(inner, each, depth + 1)
            for each, inner in properties.items()
            if each in required or self._lots.share(self._optional)
        }

    def _array(self, schema: Json, name: str, depth: int) -> list[Any]:
        least = schema.get("minItems", 1)
        most = min(schema.get("maxItems", max(least, LONGEST_LIST)), max(least, LONGEST_LIST))
        if least > most:
            raise Unsatisfiable(f"{name!r} has minItems {least} over maxItems {most}")
        found: list[Any] = []
        for _ in range(TRIES):
            if len(found) >= most or (len(found) >= least and found and self._lots.share(0.5)):
                return found
            drawn = self.value(schema.get("items", {}), name, depth + 1)
            if drawn not in found or not schema.get("uniqueItems"):
                found.append(drawn)
        if len(found) < least:
            raise Unsatisfiable(f"{name!r} asks for {least} different items, and there are {len(found)}")
        return found

    def _text(self, schema: Json, name: str) -> str:
        if pattern := schema.get("pattern"):
            try:
                return patterns.text_of(pattern, self._lots)
            except patterns.NoText as error:
                raise Unsatisfiable(f"{name!r} has the pattern {pattern!r:.100}: {error}") from error
        filler = vocabulary.BY_FORMAT.get(schema.get("format", "")) or vocabulary.by_word(words_of(name))
        least, most = schema.get("minLength", 0), schema.get("maxLength", 10_000)
        if least > most:
            raise Unsatisfiable(f"{name!r} has minLength {least} over maxLength {most}")
        if not most:
            return ""
        for _ in range(TRIES):
            if least <= len(text := filler(self._lots)) <= most:
                return text
        return self._of_length(least, most)

    def _of_length(self, least: int, most: int) -> str:
        """Letters, where no word is as long or as short."""
        length = self._lots.between(max(least, 1), max(1, min(most, least + 6)))
        return "".join(self._lots.one("ABCDEFGHKLMNPRSTUVWXYZ23456789") for _ in range(length))

    def _number(self, schema: Json, name: str, whole: bool) -> int | float:
        least, most = _bounds(schema)
        step = schema.get("multipleOf") or (1 if whole else 0.01 if most - least < 10_000 else 0.5)
        if least > most:
            raise Unsatisfiable(f"{name!r} has the minimum {least:g} over the maximum {most:g}")
        low, high = int(-(-least // step)), int(most // step)
        if low > high:
            raise Unsatisfiable(f"{name!r} has no multiple of {step:g} between {least:g} and {most:g}")
        for _ in range(TRIES):
            drawn = self._lots.between(low, high) * step
            # 3.0 is said as 3, and so it is written.
            drawn = int(drawn) if whole or drawn == int(drawn) else round(drawn, 6)
            # By floats, as whoever checks it reckons: 256.9 is no multiple of 0.1.
            if "multipleOf" not in schema or drawn / step == int(drawn / step):
                return drawn
        raise Unsatisfiable(f"{name!r} has no multiple of {step:g} that floats can hold")

    def _resolved(self, schema: Json, name: str) -> Json:
        for _ in range(DEEPEST):
            if not isinstance(pointer := schema.get("$ref"), str):
                return schema
            found: Any = self._root
            for part in pointer.removeprefix("#/").split("/"):
                found = found.get(part) if isinstance(found, Mapping) else None
            if not isinstance(found, dict):
                raise Unsatisfiable(f"{name!r} has the $ref {pointer!r:.100}, which points nowhere within")
            schema = found
        raise Unsatisfiable(f"{name!r} has a $ref that goes in a circle")


def _bounds(schema: Json) -> tuple[float, float]:
    """Both belong to it. Without bounds, numbers as people say them."""
    step = 1 if kind_of(schema) == "integer" else 0.01
    least = schema.get("minimum", schema["exclusiveMinimum"] + step if "exclusiveMinimum" in schema else None)
    most = schema.get("maximum", schema["exclusiveMaximum"] - step if "exclusiveMaximum" in schema else None)
    if least is None:
        least = 1 if most is None or most >= 1 else most - 1_000
    return least, least + 999 if most is None else most
