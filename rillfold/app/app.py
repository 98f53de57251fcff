"""`App`: events, projections, reactions and what else a user adds, in a package of his own."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast, dataclass_transform

import msgspec

from processors.dataset.taught import Rule
from projections.catalog import PROJECTIONS
from projections.projection import Projection, Together
from rillfold.app.declared import TOPIC, NamedEvent, NamedTopic, Step, event_of, steps_known, topic_named
from rillfold.app.errors import BadApp, place_of
from rillfold.app.projected import Declared, Key, projection_of
from rillfold.app.reacted import Function, Reacting, reaction_of
from rillfold.app.recorded import Records
from rillfold.app.signed import Signing, kind_of_auth
from rillfold.app.taught import Teach, rule_of
from schemas.codec.additions import AddedEvent
from schemas.codec.catalog import kind_of
from schemas.envelope import Event, Kind
from schemas.topics import TOPIC_OF, Topic
from streams.bridge.signing import AuthKind
from streams.react.reaction import Begin, Reaction

State = TypeVar("State", bound=msgspec.Struct)
Class = TypeVar("Class", bound=type[Any])
LEGAL = re.compile(r"[a-z][a-z0-9_]{0,39}")


class App:
    """`app = App("shop")`, named by RILLFOLD_APP or by an entry point of the group `rillfold.apps`."""

    def __init__(self, name: str) -> None:
        if not LEGAL.fullmatch(name):
            raise BadApp(f"An application cannot be named {name!r}: take 1 to 40 lower letters, digits and _.")
        self.name = name
        beside = sys._getframe(1).f_globals.get("__file__")
        self.records = Records(name, (Path(beside).resolve().parent if beside else Path.cwd()) / "recorded")
        self._projections: dict[str, Projection[Any]] = {}
        self._reactions: dict[str, Reaction] = {}
        self._rules: dict[str, Rule] = {}
        self._auths: dict[str, AuthKind] = {}
        self._topics: dict[str, Topic] = {}
        self._events: dict[type[Event], Topic] = {}
        self._steps: dict[tuple[str, int], Step] = {}
        self._places: dict[object, str] = {}

    @property
    def projections(self) -> Mapping[str, Projection[Any]]:
        return self._projections

    @property
    def reactions(self) -> Mapping[str, Reaction]:
        return self._reactions

    @property
    def rules(self) -> Mapping[str, Rule]:
        """By name and version."""
        return self._rules

    @property
    def auths(self) -> Mapping[str, AuthKind]:
        return self._auths

    @property
    def events(self) -> Mapping[type[Event], Topic]:
        return self._events

    @property
    def topics(self) -> Mapping[str, Topic]:
        return self._topics

    def topic(
        self, name: str, *, partitions: int = 4, retention: timedelta | None = None, compact: bool = False
    ) -> Topic:
        """One more topic, which `rillfold topics create` makes. Without `retention` its records are kept for ever."""
        caller = sys._getframe(1)
        place = f"{caller.f_code.co_filename}:{caller.f_lineno}"
        if name in self._topics:
            raise BadApp(f"{place}: {self.name} has a topic {name!r} already. Take another name.")
        self._topics[name] = topic_named(name, NamedTopic(partitions, retention, compact), place)
        return self._topics[name]

    @dataclass_transform(kw_only_default=True, frozen_default=True)
    def event(self, type_: str, *, version: int = 1, topic: str = TOPIC) -> Callable[[Class], Class]:
        """Of a class with annotations makes an event: its fields behind the envelope's."""
        _in_parentheses(type_, "event", '"a.type"')

        def made(cls: Class) -> Class:
            where = place_of(cls)
            if type_ in {kind_of(known).type for known in self._events}:
                raise BadApp(f"{where}: event {type_!r} is there already in {self.name}. Take another name.")
            event, on = event_of(cls, NamedEvent(type_, version, topic), self._topics)
            self._events[event], self._places[event] = on, where
            return cast(Class, event)

        return made

    def upcast(self, type_: str, version: int) -> Callable[[Step], Step]:
        """Lifts the fields of one version of an event to the next, as they would have been written then."""

        def made(step: Step) -> Step:
            self._steps[type_, version] = step
            return step

        return made

    def projection(
        self, name: str, *, key: Key | None = None, version: int = 1, merge: Mapping[str, Together] | None = None
    ) -> Callable[[Callable[[State, Any], State]], Projection[State]]:
        """Of a fold makes a projection. `key` says the row within the company, or None where an event does not matter;
        without it each company has one row. `merge` puts parts of a row together that lie in several partitions."""
        _in_parentheses(name, "projection", '"a_name"')

        def made(fold: Callable[[State, Any], State]) -> Projection[State]:
            if name in PROJECTIONS or name in self._projections:
                whose = "Rillfold has one" if name in PROJECTIONS else f"{self.name} has one already"
                raise BadApp(f"{place_of(fold)}: a projection cannot be named {name!r}: {whose}. Take another name.")
            projection = projection_of(fold, Declared(name, key, version, merge), self._topic_of)
            self._projections[name], self._places[name] = projection, place_of(fold)
            return projection

        return made

    def reaction(
        self, *bare: object, topic: str = TOPIC, version: int = 1, begin: Begin = "now", seconds: float = 10.0
    ) -> Callable[[Function], Function]:
        """Of a coroutine makes a reaction, named like it. `begin` says with which events its first start begins: what
        comes from now on, or the first that the log holds. So long one try may take: `seconds`."""
        for each in bare:
            _in_parentheses(each, "reaction", "")

        def made(function: Function) -> Function:
            reaction = reaction_of(
                function, Reacting(self.name, self._topics, topic, version, begin, seconds), self._topic_of
            )
            if reaction.name in self._reactions:
                told = f"{self.name} has one already. Take another name"
                raise BadApp(f"{place_of(function)}: a reaction cannot be named {reaction.name!r}: {told}.")
            self._reactions[reaction.name] = reaction
            return function

        return made

    def rule(self, name: str, *, version: int = 1) -> Callable[[Teach], Teach]:
        """Of a pure function from an event to talks makes a dataset rule. Older versions may stay beside the newest."""
        _in_parentheses(name, "rule", '"a_name"')

        def made(function: Teach) -> Teach:
            rule = rule_of(function, name, version, self._topic_of)
            if self._rules.setdefault(rule.name, rule) is not rule:
                raise BadApp(f"{rule.place}: rule {rule.name!r} is there already in {self.name}. Say another version.")
            return function

        return made

    def auth(self, name: str) -> Callable[[Signing], Signing]:
        """Of a pure function from a secret, a request and the time to headers makes a kind of auth for tools."""
        _in_parentheses(name, "auth", '"a_name"')

        def made(function: Signing) -> Signing:
            kind = kind_of_auth(function, name)
            if self._auths.setdefault(name, kind) is not kind:
                raise BadApp(f"{kind.place}: auth {name!r} is there already in {self.name}. Take another name.")
            return function

        return made

    def record(self) -> list[str]:
        """Writes down what is not on record yet: schemas of events, the shape of states, and the code of rules."""
        return self.records.write(iter(self._events), iter(self._projections.values()), self._rules.values())

    def checked(self) -> Iterator[AddedEvent]:
        """Its events, once all that it declares is found to be as it is on record."""
        for name, projection in self._projections.items():
            self.records.check_state(projection, self._places[name])
        for rule in self._rules.values():
            self.records.check_rule(rule)
        for cls, topic in self._events.items():
            kind, where = kind_of(cls), self._places[cls]
            stored = self.records.stored(cls, where)
            steps_known(kind.version, kind.type, self._steps, where)
            steps = {Kind(type_, n): step for (type_, n), step in self._steps.items() if type_ == kind.type}
            yield AddedEvent(cls, topic, stored, steps)

    def _topic_of(self, event: type[Event]) -> Topic | None:
        return self._events.get(event) or TOPIC_OF.get(event)


def _in_parentheses(given: object, what: str, example: str) -> None:
    """A decorator without them gets the thing itself for its first word, and would make nothing of it."""
    if example and isinstance(given, str):
        return
    where = place_of(given) if callable(given) else repr(given)
    raise BadApp(f"{where}: write @app.{what}({example}), in parentheses and with nothing else for its first word.")
