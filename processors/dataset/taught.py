"""What an application's rule makes of an event: talks, which are learned like conversations."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from processors.dataset.lessons import Talk
from processors.dataset.marks import TakenAt
from processors.dataset.turns import RuleUsed
from processors.errors import RuleMissing
from schemas.codec.codec import encode
from schemas.company import ConversationIngested
from schemas.envelope import Event

MOST_TALKS = 100
"""Of one event, by one rule."""


@dataclass(frozen=True)
class Rule:
    """A pure function of one event. The same name and code give the same talks, wherever they are made."""

    name: str
    """With its version: orders.v1."""
    sha256: str
    """Of its code."""
    kinds: frozenset[type[Event]]
    topics: tuple[str, ...]
    place: str
    """File and line."""
    call: Callable[[Event], Iterable[Talk]]


NO_RULES: Mapping[str, Rule] = {}


def chosen(names: Sequence[str], there: Mapping[str, Rule], used: Collection[RuleUsed] = ()) -> list[Rule]:
    """`used`: of a manifest, whose rows are to be made again. Raises `RuleMissing`."""
    if missing := [name for name in names if name not in there]:
        known = ", ".join(there) or "none"
        raise RuleMissing(f"There is no rule {missing[0]!r:.100} here; there are: {known}. Install what has it.")
    for each in used:
        if each.name in there and there[each.name].sha256 != each.sha256:
            told = f"{there[each.name].place} is other code ({there[each.name].sha256}) than the manifest's"
            raise RuleMissing(f"Rule {each.name!r}: {told} ({each.sha256}). Install the release that made it.")
    return [there[name] for name in dict.fromkeys(names)]


def topics_of(names: Sequence[str], there: Mapping[str, Rule]) -> tuple[str, ...]:
    """Where the events stand that these rules take. What is not there has none."""
    return tuple(sorted({topic for name in names if name in there for topic in there[name].topics}))


class AskedRules:
    """Asks rules, and counts what came of it."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._events, self._failed = Counter[str](), Counter[str]()
        self._first: dict[str, str] = {}
        self.kinds = frozenset(kind for rule in rules for kind in rule.kinds)

    def talks(self, event: Event, place: TakenAt) -> list[Talk]:
        """Of all rules that take such events."""
        return [talk for rule in self._rules if type(event) in rule.kinds for talk in self._asked(rule, event, place)]

    def used(self) -> tuple[RuleUsed, ...]:
        return tuple(
            RuleUsed(name=each.name, sha256=each.sha256, events=self._events[each.name], failed=self._failed[each.name])
            for each in self._rules
        )

    def failures(self) -> tuple[str, ...]:
        """A line for each rule that could not take some events."""
        return tuple(
            f"rule {name} failed over {self._failed[name]} events, of which nothing is learned; the first: {told}"
            for name, told in self._first.items()
        )

    def _asked(self, rule: Rule, event: Event, place: TakenAt) -> list[Talk]:
        """An event that a rule cannot take teaches nothing by it, whatever else it may say."""
        self._events[rule.name] += 1
        try:
            return _held_to(rule, event)
        except (Exception, SystemExit) as error:
            self._failed[rule.name] += 1
            self._first.setdefault(rule.name, f"{place}: {rule.place}: {type(error).__name__}: {error!s:.300}")
            return []


def _held_to(rule: Rule, event: Event) -> list[Talk]:
    """Nothing that no conversation could hold."""
    talks = list(islice(rule.call(event), MOST_TALKS + 1))
    if len(talks) > MOST_TALKS:
        raise ValueError(f"more than {MOST_TALKS} talks of one event")
    return [_sound(talk, event) for talk in talks]


def _sound(talk: Talk, event: Event) -> Talk:
    if type(talk) is not Talk:
        raise TypeError(f"it made {type(talk).__name__}, not rillfold.Talk")
    sound = msgspec.convert(msgspec.to_builtins(talk), Talk)
    said = ConversationIngested(
        id=event.id,
        company=event.company,
        time=event.time,
        correlation=event.correlation,
        agent=sound.agent,
        messages=sound.messages,
    )
    encode(said)
    return sound
