"""A projection made from a function: its annotations say the state and the events."""

import re
from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction, isfunction, isgeneratorfunction
from typing import Any, NamedTuple, TypeVar

import msgspec

from projections.projection import OTHER_GROUPS, Projection, Together
from rillfold.app.errors import BadApp, place_of
from rillfold.app.states import beginning, check_state, hints_of, kinds_of, merging, readable
from schemas.envelope import Event
from schemas.topics import Topic

State = TypeVar("State", bound=msgspec.Struct)
Key = Callable[[Any], str | None]
LEGAL = re.compile(r"[a-z][a-z0-9_]{0,39}")
FORM = "def total(state: Total, event: OrderPaid) -> Total"
TAKEN = re.compile(r"positions|sink_positions|refused|set_aside|incoming|.*_v\d+")
"""Tables of the read model that are no view of a projection."""


class Declared(NamedTuple):
    """What an application says of a projection beside its fold."""

    name: str
    key: Key | None
    version: int
    merge: Mapping[str, Together] | None


def projection_of(
    fold: Callable[[State, Any], State], said: Declared, topic_of: Callable[[type[Event]], Topic | None]
) -> Projection[State]:
    where, of = place_of(fold), f"projection {said.name!r}"
    if not isfunction(fold) or iscoroutinefunction(fold) or isgeneratorfunction(fold):
        raise BadApp(f"{where}: the fold of {of} is no plain function: {FORM}.")
    _check_name(said, where)
    state, kinds = _said(fold, of, where)
    check_state(state, of, where)
    topics = _topics(kinds, topic_of, of, where)
    return Projection(
        name=said.name,
        version=said.version,
        topics=topics,
        state=state,
        key=_row_of(said, frozenset(kinds), where),
        initial=beginning(state),
        fold=_held_to(state, fold, of),
        merge=None if said.merge is None else merging(state, said.merge, of),
        together=said.merge,
    )


def _check_name(said: Declared, where: str) -> None:
    if not LEGAL.fullmatch(said.name) or TAKEN.fullmatch(said.name) or said.name in OTHER_GROUPS:
        told = (
            "take 1 to 40 lower letters, digits and _, a letter first, no table of the read model's own and no "
            f"group of other workers ({', '.join(sorted(OTHER_GROUPS))})"
        )
        raise BadApp(f"{where}: a projection cannot be named {said.name!r}: {told}.")
    if type(said.version) is not int or said.version < 1:
        raise BadApp(f"{where}: projection {said.name!r} has version {said.version!r}: count from 1.")
    if said.key is not None and not callable(said.key):
        raise BadApp(f"{where}: the key of projection {said.name!r} is no function: key=lambda event: event.day.")


def _said(fold: Callable[[State, Any], State], of: str, where: str) -> tuple[type[State], list[type[Event]]]:
    """The state's type and the events' types."""
    hints = hints_of(fold, of)
    answered = hints.pop("return", None)
    names = fold.__code__.co_varnames[: fold.__code__.co_argcount]
    if len(names) != 2 or any(name not in hints for name in names) or answered is None:
        raise BadApp(f"{where}: {of} is a function of a state and an event that says the types of both: {FORM}.")
    state, event = hints[names[0]], hints[names[1]]
    if answered is not state:
        raise BadApp(f"{where}: {of} takes {named(state)} and returns {named(answered)}: a fold returns its state.")
    return state, kinds_of(event)


def _topics(
    kinds: list[type[Event]], topic_of: Callable[[type[Event]], Topic | None], of: str, where: str
) -> tuple[str, ...]:
    found: list[Topic] = []
    for kind in kinds:
        topic = topic_of(kind)
        if topic is None:
            told = "take one of schemas/ (RecordIngested of schemas.company), or a class under @app.event"
            raise BadApp(f"{where}: {of} folds {named(kind)}, which is no event that is there: {told}.")
        if not topic.keeps_all:
            told = f"{topic.name} does not keep all, so a fresh fold would give other rows: react to it instead"
            raise BadApp(f"{where}: {of} cannot fold {named(kind)}: {told}.")
        if topic not in found:
            found.append(topic)
    if len({(topic.key, topic.partitions) for topic in found}) > 1:
        told = ", ".join(topic.name for topic in found)
        raise BadApp(f"{where}: {of} folds events of {told}, whose records are spread by different rules: fold one.")
    return tuple(topic.name for topic in found)


def _row_of(said: Declared, kinds: frozenset[type[Event]], where: str) -> Callable[[Event], str | None]:
    """The company stands before every key, whatever the application says."""
    key, name = said.key, said.name

    def row(event: Event) -> str | None:
        if type(event) not in kinds:
            return None
        if key is None:
            return event.company
        part = key(event)
        if type(part) is str:
            return f"{event.company}/{part}"
        if part is None:
            return None
        raise TypeError(f"{where}: the key of {name} is {type(part).__name__}: return text, or None for no row")

    return row


def _held_to(state: type[State], fold: Callable[[State, Any], State], of: str) -> Callable[[State, Event], State]:
    """What returns something else has not folded its event: one reading of it must not become a row."""
    check = readable(state, of)

    def step(before: State, event: Event) -> State:
        try:
            after = fold(before, event)
        except SystemExit as error:
            raise RuntimeError(f"{place_of(fold)}: {of} wanted to end the process: {error}") from error
        if type(after) is state:
            if after is not before:
                check(after)
            return after
        raise TypeError(f"{place_of(fold)}: {of} returned {type(after).__name__}, not {state.__name__}")

    return step


def named(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))
