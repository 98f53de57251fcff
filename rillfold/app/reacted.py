"""A reaction made from a coroutine function: its annotations say the events."""

import re
from collections.abc import Callable, Coroutine, Mapping
from inspect import iscoroutinefunction, isfunction
from typing import Any, NamedTuple, cast, get_args

from rillfold.app.errors import BadApp, place_of
from rillfold.app.projected import named
from rillfold.app.states import hints_of, kinds_of
from schemas.envelope import Event
from schemas.topics import BY_NAME, Topic
from streams.react.reaction import LETTERS, Begin, Emit, Reaction

Function = Callable[[Any, Emit], Coroutine[Any, Any, None]]
LEGAL = re.compile(r"[a-z][a-z0-9_]{0,39}")
FORM = "async def thank(event: OrderPaid, emit: Emit) -> None"
MOST_SECONDS = 30.0
"""A partition of the topic waits for as long."""


class Reacting(NamedTuple):
    """What an application says of a reaction beside its function."""

    app: str
    topics: Mapping[str, Topic]
    """The application's own."""
    topic: str
    version: int
    begin: Begin
    seconds: float


def reaction_of(function: Function, said: Reacting, topic_of: Callable[[type[Event]], Topic | None]) -> Reaction:
    where, name = place_of(function), str(getattr(function, "__name__", function))
    of = f"reaction {name!r}"
    if not isfunction(function) or not iscoroutinefunction(function):
        raise BadApp(f"{where}: {of} is no coroutine function: {FORM}.")
    _check(said, name, of, where)
    kinds = _kinds(function, of, where)
    for kind in kinds:
        _check_topic(kind, topic_of(kind), said, of, where)
    return Reaction(
        app=said.app,
        name=name,
        version=said.version,
        topic=said.topic,
        kinds=frozenset(kinds),
        begin=said.begin,
        seconds=float(said.seconds),
        call=function,
    )


def _check(said: Reacting, name: str, of: str, where: str) -> None:
    if not LEGAL.fullmatch(name):
        raise BadApp(f"{where}: a reaction cannot be named {name!r}: take 1 to 40 lower letters, digits and _.")
    topics = {**BY_NAME, **said.topics}
    if said.topic not in topics or said.topic == LETTERS:
        there = ", ".join(topic for topic in topics if topic != LETTERS)
        raise BadApp(f"{where}: {of} cannot react to what stands on {said.topic!r}. Take one of {there}.")
    if type(said.version) is not int or said.version < 1:
        raise BadApp(f"{where}: {of} has version {said.version!r}: count from 1.")
    if said.begin not in get_args(Begin):
        told = 'say "now" (what comes from its first start on) or "first" (all that the log holds)'
        raise BadApp(f"{where}: {of} begins {said.begin!r}: {told}.")
    if type(said.seconds) not in (int, float) or not 0 < said.seconds <= MOST_SECONDS:
        told = f"take more than 0 and at most {MOST_SECONDS:g}. What takes longer is a job or a process of its own"
        raise BadApp(f"{where}: {of} may take {said.seconds!r} seconds: {told}.")


def _kinds(function: Function, of: str, where: str) -> list[type[Event]]:
    hints = hints_of(function, of)
    names = function.__code__.co_varnames[: function.__code__.co_argcount + function.__code__.co_kwonlyargcount]
    answered, emit = hints.get("return", type(None)), hints.get("emit", Emit)
    if len(names) != 2 or names[0] not in hints or names[1] != "emit" or function.__code__.co_kwonlyargcount:
        raise BadApp(f"{where}: {of} takes an event that says its type, and emit: {FORM}.")
    if emit is not Emit:
        raise BadApp(f"{where}: {of} says that emit is {named(emit)}: it is rillfold.Emit, or says nothing.")
    if answered is not type(None):
        raise BadApp(f"{where}: {of} returns {named(answered)}: a reaction emits, and returns nothing.")
    return cast(list[type[Event]], kinds_of(hints[names[0]]))


def _check_topic(kind: type[Event], topic: Topic | None, said: Reacting, of: str, where: str) -> None:
    if topic is None:
        told = "take one of schemas/ (RecordIngested of schemas.company), or a class under @app.event"
        raise BadApp(f"{where}: {of} reacts to {named(kind)}, which is no event that is there: {told}.")
    if topic.name != said.topic:
        told = f"it stands on {topic.name}. Say topic={topic.name!r}"
        raise BadApp(f"{where}: {of} never meets {named(kind)} on {said.topic}: {told}.")
