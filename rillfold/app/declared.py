"""An event's class made from a plain annotated one: its fields behind the envelope, each text of a kind of word."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import NoneType, UnionType, new_class
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec

from rillfold.app.errors import BadApp, place_of
from rillfold.app.states import hints_of
from schemas.codec.catalog import classes
from schemas.codec.derive import avro_of
from schemas.envelope import Event
from schemas.topics import BY_NAME, TOPICS, Topic, by_entity
from schemas.words import Text, Word

LEGAL = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
LEGAL_TOPIC = re.compile(r"[a-z][a-z0-9-]{0,79}")
LONGEST, MOST_PARTITIONS = 64, 1_000
ENVELOPE = frozenset(field.name for field in msgspec.structs.fields(Event))
NUMBERS = (int, float, bool, bytes)
TOPIC = "company-data"
"""Where companies say things themselves. Every other topic is between workers of ours."""
KINDS = (
    "text, a kind of schemas.words, int, float, bool, bytes, a frozen struct, tuple[..., ...] of these, or one or None"
)
OMITTED = ("__dict__", "__weakref__", "__annotations__")
Fields = dict[str, Any]
Step = Callable[[Fields], Fields]
Class = TypeVar("Class", bound=type[Any])


class NamedTopic(NamedTuple):
    """What an application says of a topic beside its name."""

    partitions: int
    retention: timedelta | None
    compact: bool


class NamedEvent(NamedTuple):
    """What an application says of an event beside its fields."""

    type: str
    version: int
    topic: str


def topic_named(name: str, said: NamedTopic, place: str) -> Topic:
    """One more, keyed like company-data."""
    if not LEGAL_TOPIC.fullmatch(name) or name.startswith("rillfold"):
        told = "take 1 to 80 lower letters, digits and -, a letter first, and not rillfold, which is of our own"
        raise BadApp(f"{place}: a topic cannot be named {name!r}: {told}.")
    if name in BY_NAME and BY_NAME[name] in TOPICS:
        raise BadApp(f"{place}: a topic cannot be named {name!r}: Rillfold has one. Take another name.")
    if type(said.partitions) is not int or not 1 <= said.partitions <= MOST_PARTITIONS:
        raise BadApp(f"{place}: topic {name!r} has {said.partitions!r} partitions: take 1 to {MOST_PARTITIONS}.")
    kept = said.retention
    if kept is not None and (not isinstance(kept, timedelta) or not timedelta() < kept < timedelta(days=36_500)):
        told = "say timedelta(days=30), or leave it out: then for ever"
        raise BadApp(f"{place}: topic {name!r} keeps its records for {kept!r}: {told}.")
    if type(said.compact) is not bool:
        raise BadApp(f"{place}: compact of topic {name!r} is {said.compact!r}: say True or False.")
    kept_ms = -1 if kept is None else max(1, kept // timedelta(milliseconds=1))
    return Topic(name, (), by_entity, said.partitions, kept_ms, compact=said.compact)


def event_of(cls: type[Any], said: NamedEvent, topics: Mapping[str, Topic]) -> tuple[type[Event], Topic]:
    """`topics`: those of the application."""
    where = place_of(cls)
    _check(said, topics, where)
    hints = hints_of(cls, f"event {said.type!r}")
    if taken := sorted(ENVELOPE & hints.keys()):
        told = "the envelope has it, and events read it there. Rename the field, or leave it out"
        raise BadApp(f"{where}: event {said.type!r} has a field {taken[0]!r}: {told}.")
    if odd := [name for name in (cls.__name__, *hints) if not name.isascii()]:
        told = "Avro has no such name: take ASCII letters, digits and _"
        raise BadApp(f"{where}: {odd[0]!r} of event {said.type!r}: {told}.")
    fields = {name: _worded(hint, f"{cls.__name__}.{name}", where) for name, hint in hints.items()}
    return _made(cls, said, fields, where), topics.get(said.topic) or BY_NAME[TOPIC]


def _made(cls: type[Any], said: NamedEvent, fields: Fields, where: str) -> type[Event]:
    body = {name: value for name, value in vars(cls).items() if name not in OMITTED}
    body |= {"__annotations__": {"type": str, "version": int, **fields}, "type": said.type, "version": said.version}
    try:
        made = new_class(cls.__name__, (Event,), {"frozen": True, "kw_only": True}, lambda space: space.update(body))
        json.dumps(avro_of(made))
        for field in msgspec.structs.fields(made):
            if field.default is not msgspec.NODEFAULT:
                msgspec.convert(field.default, field.type)
    except Exception as error:
        told = "a default is of its field's type and what JSON has, so bytes and structs have none"
        raise BadApp(f"{where}: event {said.type!r} cannot be made of {cls.__name__}: {error}; {told}.") from error
    return made


def _check(said: NamedEvent, topics: Mapping[str, Topic], where: str) -> None:
    if not LEGAL.fullmatch(said.type) or len(said.type) > LONGEST:
        told = f"take lower words with dots between, {LONGEST} characters at most: order.paid"
        raise BadApp(f"{where}: an event cannot be named {said.type!r}: {told}.")
    if said.type in classes():
        raise BadApp(f"{where}: event {said.type!r} is there already. Take another name.")
    if type(said.version) is not int or said.version < 1:
        raise BadApp(f"{where}: event {said.type!r} has version {said.version!r}: count from 1.")
    if said.topic != TOPIC and said.topic not in topics:
        told = f"an application's are on {', '.join((TOPIC, *topics))}, or on one that app.topic makes"
        raise BadApp(f"{where}: event {said.type!r} cannot live on {said.topic!r}: {told}.")


def _worded(hint: Any, field: str, where: str, inside: tuple[Any, ...] = ()) -> Any:
    """Text that says nothing else is of the kind `text`; what Avro has no place for is refused."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is str:
        return Text
    if hint in NUMBERS or (origin is Annotated and arguments[0] is str and isinstance(arguments[1], Word)):
        return hint
    if origin in (Union, UnionType) and len(arguments) == 2 and NoneType in arguments:
        (inner,) = (each for each in arguments if each is not NoneType)
        return _worded(inner, field, where, inside) | None
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple[_worded(arguments[0], field, where, inside), ...]  # type: ignore[misc]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and hint.__struct_config__.frozen:
        return _checked(hint, where, inside)
    raise BadApp(f"{where}: {field} is {hint}, which no event can hold. Take {KINDS}.")


def _checked(struct: type[msgspec.Struct], where: str, inside: tuple[Any, ...]) -> type[msgspec.Struct]:
    if struct in inside:
        raise BadApp(f"{where}: {struct.__name__} holds itself, which no event can: say how deep.")
    for name, hint in hints_of(struct, struct.__name__).items():
        if _worded(hint, f"{struct.__name__}.{name}", where, (*inside, struct)) != hint:
            raise BadApp(f"{where}: {struct.__name__}.{name} is {hint}: within a struct say Text of schemas.words.")
    return struct


def steps_known(versions: int, type_: str, steps: Mapping[tuple[str, int], Step], where: str) -> None:
    for version in range(1, versions):
        if (type_, version) not in steps:
            told = f'@app.upcast("{type_}", {version}): all fields of that version in, those of the next out'
            raise BadApp(f"{where}: nothing lifts {type_}.v{version} to version {version + 1}. Add {told}.")
