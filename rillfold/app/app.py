"""`App`: events, projections and what else a user adds, in a package of his own."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from projections.catalog import PROJECTIONS
from projections.projection import Projection, Together
from rillfold.app.errors import BadApp, place_of
from rillfold.app.projected import Key, Declared, projection_of
from schemas.envelope import Event
from schemas.topics import TOPIC_OF, Topic

State = TypeVar("State", bound=msgspec.Struct)
LEGAL = re.compile(r"[a-z][a-z0-9_]{0,39}")


class App:
    """`app = App("shop")`, named by RILLFOLD_APP or by an entry point of the group `rillfold.apps`."""

    def __init__(self, name: str) -> None:
        if not LEGAL.fullmatch(name):
            raise BadApp(f"An application cannot be named {name!r}: take 1 to 40 lower letters, digits and _.")
        self.name = name
        self._projections: dict[str, Projection[Any]] = {}

    @property
    def projections(self) -> Mapping[str, Projection[Any]]:
        return self._projections

    def projection(
        self, name: str, *, key: Key | None = None, version: int = 1, merge: Mapping[str, Together] | None = None
    ) -> Callable[[Callable[[State, Any], State]], Projection[State]]:
        """Of a fold makes a projection. `key` says the row within the company, or None where an event does not matter;
        without it each company has one row. `merge` puts parts of a row together that lie in several partitions."""

        def made(fold: Callable[[State, Any], State]) -> Projection[State]:
            if name in PROJECTIONS or name in self._projections:
                whose = "Rillfold has one" if name in PROJECTIONS else f"{self.name} has one already"
                raise BadApp(f"{place_of(fold)}: a projection cannot be named {name!r}: {whose}. Take another name.")
            projection = projection_of(fold, Declared(name, key, version, merge), self._topic_of)
            self._projections[name] = projection
            return projection

        return made

    def _topic_of(self, event: type[Event]) -> Topic | None:
        return TOPIC_OF.get(event)
