"""How values and names stand in what people say, and whether a text says a value."""

import re
from typing import Any

UNITS = {
    "minutes": "minutes", "hours": "hours", "days": "days", "weeks": "weeks", "months": "months", "seconds": "seconds",
    "kg": "kg", "grams": "grams", "tons": "tons", "km": "km", "meters": "meters", "miles": "miles", "cm": "cm",
    "eur": "euros", "euros": "euros", "usd": "dollars", "dollars": "dollars", "percent": "percent",
    "celsius": "degrees", "degrees": "degrees", "litres": "litres", "liters": "liters", "kwh": "kWh",
}  # fmt: skip
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w]|\.\d)")


def words_of(name: str) -> list[str]:
    """delivery_date, deliveryDate: delivery, date."""
    return [part.lower() for part in _PART.findall(name)]


def label_of(name: str) -> str:
    """Of an argument, without its unit."""
    words = words_of(name)
    return " ".join(words[:-1] if len(words) > 1 and words[-1] in UNITS else words) or name


def unit_of(name: str) -> str:
    words = words_of(name)
    return UNITS.get(words[-1], "") if len(words) > 1 else ""


def wish_of(tool: str) -> str:
    """What a tool does, by its name."""
    return " ".join(words_of(tool)) or tool


def said(value: Any, listed: bool = False) -> str:
    """As people say it. `listed`: one of a few words, which stand for themselves."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, list):
        parts = [said(each, listed) for each in value]
        return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else "none"
    return str(value).replace("_", " ") if listed else str(value)


def says(text: str, value: Any, label: str) -> bool:
    """Whether a text names a value, in whatever words stand around it."""
    if isinstance(value, bool):
        return _says_whether(_plain(text), value, label)
    if isinstance(value, int | float):
        return any(float(each) == float(value) for each in _NUMBER.findall(text))
    if isinstance(value, dict):
        return all(says(text, inner, label_of(key)) for key, inner in value.items())
    if isinstance(value, list):
        return all(says(text, each, label) for each in value)
    if value is None:
        return True
    return text_has(text, str(value))


def text_has(text: str, words: str) -> bool:
    """As whole words, whatever capitals and blanks."""
    inside = _plain(words)
    return bool(inside) and re.search(rf"(?<!\w){re.escape(inside)}(?!\w)", _plain(text)) is not None


def numbers_in(text: str) -> list[str]:
    return re.findall(r"\d+", text)


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").lower().split())


def _says_whether(text: str, value: bool, label: str) -> bool:
    if not text_has(text, label):
        return False
    near = re.escape(_plain(label))
    denied = re.search(rf"\b(without|no|not)( (the|any|a))? {near}|{near}( is|:| =)? (no|not|false|off)\b", text)
    return (denied is None) is value
