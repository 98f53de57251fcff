"""A reaction: what an application does when an event comes, as far as who runs it must know."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from schemas.envelope import Event, Origin, derived_id
from schemas.topics import TopicNames

Begin = Literal["now", "first"]
LETTERS = "dead-letter"
"""Where failures are told, and where a redrive says that one is to be tried again."""


class Emit(Protocol):
    """`emit(OrderThanked, order=event.order)`: an event of the company that is reacted to."""

    def __call__(self, kind: type[Any], /, **fields: Any) -> None: ...


@dataclass(frozen=True)
class Reaction:
    """One version of it. The next has another name in the log: it begins anew, as it declares."""

    app: str
    name: str
    version: int
    topic: str
    """Our name."""
    kinds: frozenset[type[Event]]
    begin: Begin
    """With what comes from its first start on, or with the first event that the log holds."""
    seconds: float
    """So long one try may take."""
    call: Callable[[Any, Emit], Coroutine[Any, Any, None]]

    def __str__(self) -> str:
        return f"{self.app}/{self.name}.v{self.version}"

    def group(self, names: TopicNames) -> str:
        return f"{names.prefix}rillfold-react-{self.app}-{self.name}-v{self.version}"

    def emitted_id(self, origin: Origin, n: int) -> str:
        """Of the n-th event that it emits over a record: the same whenever it is tried."""
        return derived_id(origin, f"{self}/{n}")

    def letter_id(self, origin: Origin) -> str:
        """Of the letter that says that it failed over a record."""
        return derived_id(origin, f"{self}/failed")
