"""Calls against what a case accepts: one, one of several tools, several in any order, or none. By the rules of the
Berkeley Function Calling Leaderboard for Python, and with its verdicts.

A call that nobody can read is kept apart here from one that was not made: the leaderboard counts both as silence.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from processors.measure.likeness import may_be_left_out, why_unlike

Kind = Literal["simple", "multiple", "parallel", "irrelevance", "relevance"]
KINDS_OF_CASES: tuple[Kind, ...] = get_args(Kind)

Tool = Mapping[str, Any]
"""As the leaderboard describes one: `name`, and `parameters` with `properties` and `required`."""
Arguments = Mapping[str, Any]
Accepted = Mapping[str, Mapping[str, Sequence[Any]]]
"""The tool's name alone, and of each argument the values that are accepted."""


class Called(NamedTuple):
    name: str
    arguments: Arguments


class BerkeleyVerdict(NamedTuple):
    right: bool
    why: str = ""
    """In a word, where it is wrong."""
    malformed: bool = False


_RIGHT = BerkeleyVerdict(True)


def kind_of(category: str) -> Kind:
    """A category of the leaderboard, such as live_parallel_multiple, by what its name holds."""
    if "irrelevance" in category:
        return "irrelevance"
    if "relevance" in category:
        return "relevance"
    return "parallel" if "parallel" in category else "multiple" if "multiple" in category else "simple"


def verdict(kind: Kind, tools: Sequence[Tool], output: object, accepted: Sequence[Accepted] = ()) -> BerkeleyVerdict:
    """`output` is a list of `{name: {argument: value}}`, or whatever else came: then no call was made, in bad form."""
    calls = read_calls(output)
    if kind in ("irrelevance", "relevance"):
        return BerkeleyVerdict(bool(calls) is (kind == "relevance"), _of_silence(kind, calls), calls is None)
    if calls is None:
        return BerkeleyVerdict(False, "malformed", malformed=True)
    if len(calls) != len(accepted):
        return BerkeleyVerdict(False, "wrong_count")
    if kind == "parallel":
        return _in_any_order(tools, calls, accepted)
    return _said(why_wrong(tools, calls[0], accepted[0]))


def read_calls(output: object) -> list[Called] | None:
    """None: it is no list of calls."""
    if not isinstance(output, list):
        return None
    calls = [call for each in output if isinstance(each, dict) and len(each) == 1 for call in each.items()]
    if len(calls) < len(output) or not all(isinstance(arguments, dict) for _, arguments in calls):
        return None
    return [Called(name, arguments) for name, arguments in calls]


def why_wrong(tools: Sequence[Tool], call: Called, accepted: Accepted) -> str:
    """Nothing, where this call is the one that is accepted."""
    ((name, values),) = accepted.items()
    if call.name != name:
        return "wrong_name"
    schema = next(tool for tool in tools if tool["name"] == name)["parameters"]
    properties = schema["properties"]
    if any(each not in call.arguments for each in schema.get("required", ())):
        return "missing_argument"
    for argument, value in call.arguments.items():
        if argument not in properties or argument not in values:
            return "unexpected_argument"
        if why := why_unlike(value, properties[argument], values[argument]):
            return why
    left_out = (each for argument, each in values.items() if argument not in call.arguments)
    return "" if all(map(may_be_left_out, left_out)) else "missing_argument"


def _in_any_order(tools: Sequence[Tool], calls: Sequence[Called], accepted: Sequence[Accepted]) -> BerkeleyVerdict:
    """Each that is wanted takes the first that fits it and is left, even where another would have left it to a later
    one: so the leaderboard does."""
    left = list(calls)
    for wanted in accepted:
        taken = next((call for call in left if not why_wrong(tools, call, wanted)), None)
        if taken is None:
            return BerkeleyVerdict(False, "no_call_fits")
        left = [call for call in left if call is not taken]
    return _RIGHT


def _of_silence(kind: Kind, calls: Sequence[Called] | None) -> str:
    if kind == "irrelevance":
        return "unwanted_call" if calls else ""
    return "" if calls else "missing_call"


def _said(why: str) -> BerkeleyVerdict:
    return BerkeleyVerdict(not why, why)
