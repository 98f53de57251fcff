"""What is done to right answers, so that two judges of them may differ: by a seed, always alike."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from random import Random
from typing import Any

from bench.evaluator.official import Case, chosen

Mutation = Callable[[list[Any], Random, Case], None]


def _arguments(output: list[Any], dice: Random) -> dict[str, Any]:
    ((_, arguments),) = dice.choice(output).items()
    return arguments


def _name(arguments: Mapping[str, Any], dice: Random) -> str:
    return dice.choice(sorted(arguments))


def _drop(output: list[Any], dice: Random, _case: Case) -> None:
    arguments = _arguments(output, dice)
    del arguments[_name(arguments, dice)]


def _rename(output: list[Any], dice: Random, _case: Case) -> None:
    arguments = _arguments(output, dice)
    old = _name(arguments, dice)
    arguments[dice.choice([old.upper(), f"{old}_", f"the_{old}", old[:-1] or "x"])] = arguments.pop(old)


def _add(output: list[Any], dice: Random, case: Case) -> None:
    """One that the tool has, or that nobody has."""
    known = sorted(dice.choice(case.tools)["parameters"]["properties"])
    _arguments(output, dice)[dice.choice([*known, "extra"])] = dice.choice([1, "x", True, [], {}, None, 0.5])


def _retype(output: list[Any], dice: Random, _case: Case) -> None:
    arguments = _arguments(output, dice)
    name = _name(arguments, dice)
    arguments[name] = dice.choice(_OTHER_TYPES)(arguments[name])


def _other_value(output: list[Any], dice: Random, case: Case) -> None:
    """Another that is accepted, its members too, or one out of another argument."""
    call = dice.randrange(len(output))
    ((_, arguments),) = output[call].items()
    name = _name(arguments, dice)
    accepted = next(iter(case.accepted[call % len(case.accepted)].values())).get(name, ["other"])
    others = [arguments[each] for each in sorted(arguments)]
    arguments[name] = deepcopy(dice.choice([*map(chosen, accepted), dice.choice(others)]))


def _noise(output: list[Any], dice: Random, _case: Case) -> None:
    """In any string, however deep."""
    places = list(_strings(output))
    if not places:
        raise LookupError("no string in it")
    holder, key = dice.choice(places)
    holder[key] = dice.choice(_NOISES)(holder[key], dice)


def _number(output: list[Any], dice: Random, _case: Case) -> None:
    places = [(holder, key) for holder, key in _places(output) if type(holder[key]) in (int, float, bool)]
    if not places:
        raise LookupError("no number in it")
    holder, key = dice.choice(places)
    holder[key] = dice.choice(_OTHER_NUMBERS)(holder[key])


def _nest(output: list[Any], dice: Random, _case: Case) -> None:
    arguments = _arguments(output, dice)
    name = _name(arguments, dice)
    arguments[name] = dice.choice(_NESTS)(arguments[name])


def _within(output: list[Any], dice: Random, _case: Case) -> None:
    """A list's or an object's own members: taken out, put twice, turned round, or replaced."""
    places = [holder[key] for holder, key in _places(output) if isinstance(holder[key], list | dict)]
    held = dice.choice([each for each in places if each] or [{}])
    if isinstance(held, dict):
        key = _name(held, dice)
        held[dice.choice(["other", key])] = dice.choice([held.pop(key), "", None, [1]])
    else:
        dice.choice([held.reverse, held.pop, lambda: held.append(held[0]), lambda: held.append(""), held.clear])()


def _reorder(output: list[Any], dice: Random, _case: Case) -> None:
    dice.shuffle(output)


def _more_calls(output: list[Any], dice: Random, _case: Case) -> None:
    output.insert(dice.randrange(len(output) + 1), deepcopy(dice.choice(output)))


def _fewer_calls(output: list[Any], dice: Random, _case: Case) -> None:
    output.pop(dice.randrange(len(output)))


def _other_tool(output: list[Any], dice: Random, case: Case) -> None:
    place = dice.randrange(len(output))
    ((name, arguments),) = output[place].items()
    others = [tool["name"] for tool in case.tools]
    output[place] = {dice.choice([*others, name.replace(".", "_"), name.lower(), f"{name}s"]): arguments}


def _malform(output: list[Any], dice: Random, _case: Case) -> None:
    place = dice.randrange(len(output))
    call = output[place]
    output[place] = dice.choice([[], "call", None, 7, {}, call | {"second": {}}, {"f": []}, {"f": "x"}, [call]])


_OTHER_TYPES: Sequence[Callable[[Any], Any]] = (
    str, json.dumps, lambda v: [v], lambda v: {"value": v}, lambda _: None, bool, lambda _: 1, lambda _: 1.0,
    lambda v: list(v) if isinstance(v, str | list | dict) else float(v), lambda _: "", lambda _: [], lambda _: {},
)  # fmt: skip
_OTHER_NUMBERS: Sequence[Callable[[Any], Any]] = (
    int, float, bool, str, lambda v: v + 1, lambda v: -v, lambda v: v + 1e-9, lambda _: 10**400,
)  # fmt: skip
_NESTS: Sequence[Callable[[Any], Any]] = (
    lambda v: [[v]], lambda v: [v, v], lambda v: {"value": [v]}, lambda v: [{"value": v}],
    lambda v: v[0] if isinstance(v, list) else [v], lambda v: [*v.values(), 0][0] if isinstance(v, dict) else {},
)  # fmt: skip
_NOISES: Sequence[Callable[[str, Random], str]] = (
    lambda s, _: s.upper(), lambda s, _: s.lower(), lambda s, _: s.replace(" ", "_"), lambda s, _: f" {s}. ",
    lambda s, _: s.replace(",", ""), lambda s, _: s.replace("'", '"'), lambda s, _: f"{s}'s", lambda s, _: s[:-1],
    lambda s, _: s.replace(" ", "\t"), lambda s, _: f"{s}!", lambda s, _: "-".join(s), lambda s, _: s + "(x)",
    lambda s, dice: "".join(dice.choice([c, c, c, c.swapcase(), f"{c}*", f"/{c}", f"^{c}"]) for c in s),
    lambda s, dice: "".join(dice.sample(s, len(s))),
)  # fmt: skip
KINDS: Mapping[str, Mutation] = {
    "drop an argument": _drop,
    "rename an argument": _rename,
    "add an argument": _add,
    "another type": _retype,
    "another value": _other_value,
    "noise in a string": _noise,
    "another number": _number,
    "nest": _nest,
    "within a list or an object": _within,
    "reorder calls": _reorder,
    "more calls": _more_calls,
    "fewer calls": _fewer_calls,
    "another tool": _other_tool,
    "malformed": _malform,
}


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Everything inside, by what holds it."""
    keys = range(len(value)) if isinstance(value, list) else list(value) if isinstance(value, dict) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _strings(output: list[Any]) -> Iterator[tuple[Any, Any]]:
    return ((holder, key) for holder, key in _places(output) if isinstance(holder[key], str))


def mutated(cases: Sequence[Case], count: int, seed: int) -> Iterator[tuple[str, Case]]:
    """One mutation or two of a case drawn by chance; the kinds take turns."""
    dice, made = Random(seed), 0
    names = list(KINDS)
    while made < count:
        name, case = names[made % len(names)], dice.choice(cases)
        output = deepcopy(case.output)
        try:
            KINDS[name](output, dice, case)
            if dice.random() < 0.25:
                KINDS[dice.choice(names)](output, dice, case)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            continue  # nothing there that it could be done to
        made += 1
        yield name, case._replace(output=output)
