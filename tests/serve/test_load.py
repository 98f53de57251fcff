"""Much traffic, and none of it through a model: what the schedule does to it. As a module it takes how many requests:

python -m tests.serve.test_load 1000000
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from time import process_time

import pytest

from gpu_workers.serve.schedule.pages import PAGE, Label
from gpu_workers.serve.schedule.rows import EngineRow, Limits
from gpu_workers.serve.schedule.schedule import LOOKS, Schedule

Row = EngineRow[str]


@dataclass
class Traffic:
    """Rows come from a source while there is room for them, and say zeros; who asks again does so at once."""

    limits: Limits
    again: Callable[[Row], Row | None] = lambda row: None
    cancels: float = 0.0
    schedule: Schedule[str] = field(init=False)
    steps: int = 0
    seconds: float = 0.0
    computed: Counter[str | None] = field(default_factory=Counter)
    came: dict[Row, int] = field(default_factory=dict)
    waits: dict[str | None, list[int]] = field(default_factory=dict)
    """Steps until the first token, in the order in which they were said."""
    answered: int = 0
    cancelled: int = 0

    def __post_init__(self) -> None:
        self.schedule = Schedule(self.limits)
        self._dice = Random(1)

    def submit(self, row: Row) -> None:
        self.came[row] = self.steps
        self.schedule.submit(row)

    def run(self, source: Iterator[Row], most: int) -> None:
        while self.steps < most:
            while len(self.came) < self.limits.waiting and (row := next(source, None)):
                self.submit(row)
            if not self.step():
                return

    def step(self) -> bool:
        began = process_time()
        batch = self.schedule.next()
        self.seconds += process_time() - began
        if batch is None:
            return False
        self.steps += 1
        held = sum(len(row.pages) for row in self.schedule.running)
        assert held + self.schedule.pages.left >= self.schedule.pages.usable >= len(batch.fresh)
        assert sum(feed.count for feed in batch.feeds) <= self.limits.step
        began = process_time()
        self.schedule.fed(batch.feeds)
        self.seconds += process_time() - began
        self._say([feed.row for feed in batch.feeds if feed.asks])
        for feed in batch.feeds:
            self.computed[feed.row.owner] += feed.count
        return True

    def _say(self, rows: list[Row]) -> None:
        done = []
        for row in rows:
            row.said.append(0)
            if len(row.said) == 1:
                self.waits.setdefault(row.owner, []).append(self.steps - self.came[row])
            if len(row.said) >= row.limit:
                done.append(row)
        self.answered += len(done)
        if self.cancels and self._dice.random() < self.cancels:
            done.append(self._dice.choice(list(self.came)))
            self.cancelled += done[-1] not in done[:-1]
        began = process_time()
        self.schedule.leave(done)
        self.seconds += process_time() - began
        for row in dict.fromkeys(done):
            del self.came[row]
            if (more := self.again(row)) is not None:
                self.submit(more)


def nearly_all(waits: list[int]) -> int:
    return sorted(waits)[len(waits) * 95 // 100]


def company(dice: Random, owner: str, adapter: str) -> Row:
    """A question of a company's own: its instructions, then a few words."""
    prompt = [hash_of(adapter)] * 2 * PAGE + [dice.randrange(1_000) for _ in range(dice.randrange(1, 7))]
    return EngineRow(dice.randrange(1 << 60), prompt, adapter, dice.randrange(1, 4), owner=owner, mark=adapter)


def hash_of(adapter: str) -> int:
    return 1_000 + int(adapter[1:])


def everybody(count: int, owners: int = 40, adapters: int = 200) -> Iterator[Row]:
    """Zipf: the first company asks most, by far; each adapter is one company's."""
    dice = Random(0)
    shares = [1 / (rank + 1) for rank in range(adapters)]
    for adapter in dice.choices(range(adapters), shares, k=count):
        yield company(dice, f"c{adapter % owners}", f"a{adapter}")


def a_day(count: int) -> Traffic:
    traffic = Traffic(Limits(pages=2_049), cancels=0.1)
    traffic.run(everybody(count), most=count)
    return traffic


def test_a_day_of_many_companies() -> None:
    count = 12_000
    day = a_day(count)
    assert day.answered + day.cancelled == count and not day.came
    assert day.schedule.pages.left == day.schedule.pages.usable
    prefixes = sum(day.computed.values()) - count * 9
    assert prefixes < 0, "instructions are 32 tokens, and are read once for an adapter, not for each question"
    assert max(max(waits) for waits in day.waits.values()) < 1_024
    rare = [wait for waits in day.waits.values() if len(waits) < count // 100 for wait in waits[len(waits) // 4 :]]
    assert nearly_all(rare) <= 40, "who asks little does not wait for who asks much"
    assert day.seconds / day.steps < 0.004


def closed(flood: int, questions: int) -> list[int]:
    """How long a company that keeps half a batch busy waits for first tokens, beside another with so many questions."""
    dice, tickets = Random(4), iter(range(10**9))

    def ask(owner: str | None) -> Row:
        ticket = next(tickets)
        return EngineRow(ticket, [ticket] * dice.randrange(10, 30), None, dice.randrange(16, 48), owner=owner)

    traffic = Traffic(Limits(), again=lambda row: ask(row.owner))
    for _ in range(16):
        traffic.submit(ask("small"))
    for _ in range(flood):
        traffic.submit(ask("flood"))
    while len(traffic.waits.get("small", ())) < questions:
        traffic.step()
    return traffic.waits["small"][questions // 4 :]


def test_a_company_that_floods_tenfold_hardly_delays_another() -> None:
    """The same company beside one that asks as much as it does, in a batch that the two just fill."""
    shared, flooded = closed(16, 400), closed(160, 400)
    assert nearly_all(flooded) <= 2 * nearly_all(shared)


def test_a_company_that_comes_late_is_served_at_once() -> None:
    traffic = Traffic(Limits())
    for ticket in range(900):
        traffic.submit(EngineRow(ticket, [ticket] * 20, None, 30, owner="flood"))
    for _ in range(100):
        traffic.step()
    for ticket in range(900, 904):
        traffic.submit(EngineRow(ticket, [ticket] * 20, None, 30, owner="small"))
    for _ in range(20):
        traffic.step()
    assert len(traffic.waits["small"]) == 4


def test_a_thousand_who_wait_cost_a_step_little() -> None:
    """Half of them have one prompt; each is of a company of its own, or all are of one."""
    for owners in (1, 1_000):
        traffic = Traffic(Limits(pages=9_001))
        for ticket in range(1_000):
            prompt = [ticket % 2 * ticket] * 3_000
            owner = f"c{ticket % owners}"
            traffic.submit(EngineRow(ticket, prompt, None, 50, owner=owner, public=0))
        times = deque[float]()
        for _ in range(150):
            before = traffic.seconds
            traffic.step()
            times.append(traffic.seconds - before)
        assert sorted(times)[75] < 0.003


@pytest.mark.parametrize("public", [0, 4_000])
def test_a_long_common_beginning_is_read_and_compared_a_little_in_each_step(
    public: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page of each row is looked at once, and none of them holds a step up with all of its pages."""
    computed, label = Counter[Row](), EngineRow.label

    def counted(row: Row, page: int, size: int) -> Label | None:
        computed[row] += 1
        return label(row, page, size)

    monkeypatch.setattr(EngineRow, "label", counted)
    common, rows = list(range(4_000)), 40
    traffic = Traffic(Limits(pages=9_001, step=512))
    for ticket in range(rows):
        owner = f"c{ticket}" if public else "c"
        traffic.submit(EngineRow(ticket, [*common, ticket], None, 20, owner=owner, public=public))
    most, before = 0, 0
    while traffic.step():
        most, before = max(most, computed.total() - before), computed.total()
    assert traffic.answered == rows and traffic.computed.total() == 4_000 + rows * 20
    assert max(computed.values()) <= 4_020 // PAGE
    assert most <= LOOKS + 2 * 4_000 // PAGE + (512 + 2 * rows) // PAGE


@pytest.mark.parametrize("prompt", [200, 30_000])
def test_a_company_with_many_long_rows_delays_another_by_a_few_steps(prompt: int) -> None:
    traffic = Traffic(Limits(pages=70_000))
    for ticket in range(64):
        traffic.submit(EngineRow(ticket, [ticket] * prompt, None, 8_000, owner="flood"))
    for _ in range(3):
        traffic.step()
    for ticket in range(64, 70):
        traffic.submit(EngineRow(ticket, [ticket] * 20, None, 4, owner="small"))
        while len(traffic.waits.get("small", ())) < ticket - 63:
            traffic.step()
    assert max(traffic.waits["small"]) <= 6


if __name__ == "__main__":
    day = a_day(int(sys.argv[1]))
    print(  # noqa: T201
        f"{day.answered} answered, {day.cancelled} cancelled,",
        f"{day.steps} steps of {1e6 * day.seconds / day.steps:.0f} us,",
        f"{sum(day.computed.values())} tokens computed; longest wait {max(map(max, day.waits.values()))} steps",
    )
