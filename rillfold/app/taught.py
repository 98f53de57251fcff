"""A dataset rule made from a function: its annotation says the events."""

import re
from collections.abc import Callable, Iterable
from inspect import iscoroutinefunction, isfunction
from typing import Any, TypeVar

from processors.dataset.lessons import Talk
from processors.dataset.taught import Rule
from processors.dataset.turns import RULE
from rillfold.app.code import code_of
from rillfold.app.errors import BadApp, place_of
from rillfold.app.projected import named
from rillfold.app.states import hints_of, kinds_of
from schemas.envelope import Event, Kind
from schemas.topics import Topic

Teach = TypeVar("Teach", bound=Callable[[Any], Iterable[Talk]])
LEGAL = re.compile(r"[a-z][a-z0-9_]{0,39}")
FORM = "def orders(event: OrderPaid) -> Iterator[Talk]"


def rule_of(
    function: Callable[[Any], Iterable[Talk]],
    name: str,
    version: int,
    topic_of: Callable[[type[Event]], Topic | None],
) -> Rule:
    where, of = place_of(function), f"rule {name!r}"
    if not isfunction(function) or iscoroutinefunction(function):
        raise BadApp(f"{where}: {of} is no plain function: {FORM}.")
    if not LEGAL.fullmatch(name) or name == RULE:
        why = "that is Rillfold's own" if name == RULE else "take 1 to 40 lower letters, digits and _, a letter first"
        raise BadApp(f"{where}: a rule cannot be named {name!r}: {why}.")
    if type(version) is not int or version < 1:
        raise BadApp(f"{where}: {of} has version {version!r}: count from 1.")
    hints, code = hints_of(function, of), function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if len(names) != 1 or names[0] not in hints:
        raise BadApp(f"{where}: {of} takes one event, and says its type: {FORM}.")
    kinds = kinds_of(hints[names[0]])
    return Rule(
        name=str(Kind(name, version)),
        sha256=code_of(function),
        kinds=frozenset(kinds),
        topics=tuple(sorted({_topic(kind, topic_of, of, where) for kind in kinds})),
        place=where,
        call=function,
    )


def _topic(kind: type[Event], topic_of: Callable[[type[Event]], Topic | None], of: str, where: str) -> str:
    topic = topic_of(kind)
    if topic is None:
        told = "take one of schemas/ (RecordIngested of schemas.company), or a class under @app.event"
        raise BadApp(f"{where}: {of} takes {named(kind)}, which is no event that is there: {told}.")
    if topic.name == "dead-letter":
        raise BadApp(f"{where}: {of} takes {named(kind)}: letters are no company's, and teach nothing.")
    if not topic.keeps_all:
        told = f"{topic.name} does not keep all, so nobody could make the same rows again"
        raise BadApp(f"{where}: {of} takes {named(kind)}: {told}.")
    return topic.name
