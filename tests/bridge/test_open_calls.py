"""Open calls hold their offsets, wait in lines of their companies, and are bounded: without a log, without a tool."""

from __future__ import annotations

import asyncio
from typing import Any

from schemas.tools import ToolCallProposed
from streams.bridge import open_calls
from streams.bridge.endpoint import ToolReply
from streams.bridge.open_calls import OpenCalls
from streams.fairness.turns import Turns
from streams.log.floors import Floors
from streams.log.port import Record
from tests.bridge.test_tool_bridge import call


async def never(_: ToolCallProposed) -> Any:
    await asyncio.Event().wait()


async def test_one_company_cannot_fill_the_memory(monkeypatch) -> None:
    """Ten calls wait, or twenty of all."""
    for name, bound in {"COMPANY_BEGUN": 0, "COMPANY_BYTES": 10_000, "ALL_BYTES": 20_000}.items():
        monkeypatch.setattr(open_calls, name, bound)
    calls = OpenCalls(never)

    def add(n: int, company: str, arguments: str = "{}") -> None:
        calls.add(Record("t", 0, n, 0, None, None), call(n, company=company, arguments=arguments))

    async def turned_away() -> list[str]:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ended = calls.ended()
        for work in ended:
            calls.close(work)
        return [f"{work.call.company} {work.task.result().reason.partition(':')[0]}" for work in ended]

    for n in range(12):
        add(n, "acme")
    assert await turned_away() == ["acme busy"] * 2
    for n in range(20, 30):
        add(n, "globex")
    assert await turned_away() == []
    add(40, "initech")
    add(41, "globex")
    assert await turned_away() == ["globex busy"], "who has little is served, who has much is not"
    add(42, "initech", arguments=f'{{"a":"{"x" * 20_000}"}}')
    assert await turned_away() == ["initech denied"]
    assert calls.floor({("t", 0): 50}) == {("t", 0): 0}
    await calls.keep_only(())
    assert (len(calls), calls.floor({("t", 0): 50})) == (0, {("t", 0): 50})


async def test_a_backlog_waits_and_companies_take_turns(monkeypatch) -> None:
    monkeypatch.setattr(open_calls, "COMPANY_BEGUN", 4)
    monkeypatch.setattr(open_calls, "ALL_BEGUN", 6)
    begun: list[str] = []

    async def answer(given: ToolCallProposed) -> Any:
        begun.append(given.company)
        return ToolReply(True, 200, "", "")

    calls = OpenCalls(answer)
    for n in range(20):
        calls.add(Record("t", 0, n, 0, None, None), call(n, company="acme" if n < 10 else "globex"))
    assert len(calls) == 20
    floors = []
    while calls:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        floors.append(calls.floor({("t", 0): 20})["t", 0])
        for work in calls.ended():
            assert work.task.result().ok
            calls.close(work)
        calls.move_on()
    assert (begun.count("acme"), begun.count("globex")) == (10, 10)
    assert begun[:7] == ["acme"] * 4 + ["globex"] * 3, "an even share is begun beside who came first"
    assert floors == sorted(floors)
    assert floors[0] == 0
    assert calls.floor({("t", 0): 20}) == {("t", 0): 20}


def test_the_first_open_offset_whatever_the_order() -> None:
    floors, place = Floors(), ("t", 0)
    for offset in (7, 5, 9):
        floors.hold(place, offset)
    assert (floors.of(place, 12), floors.of(place, 4), floors.of(("t", 1), 12)) == (5, 4, 12)
    floors.release(place, 5)
    floors.hold(place, 6)
    assert floors.of(place, 12) == 6
    for offset in (6, 7, 9):
        floors.release(place, offset)
    assert floors.of(place, 12) == 12


async def test_a_line_moves_in_order_and_forgets_who_left() -> None:
    turns = Turns(1)
    order: list[int] = []

    async def go(n: int) -> None:
        async with turns.turn("door"):
            order.append(n)
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(go(n)) for n in range(6)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 2, 4, 5]
    assert not await _refused(turns)
    assert turns._doors == {}


async def _refused(turns: Turns) -> bool:
    """Whoever waits behind a door that nobody comes out of is sent away, and takes no turn with him."""
    async with turns.turn("door"):
        assert not await turns.enter("door", 0.05)
    entered = await turns.enter("door", 0)
    turns.leave("door")
    return not entered


async def test_a_line_that_gets_on_is_waited_in() -> None:
    turns = Turns(1)
    await turns.enter("door")
    waiting = asyncio.create_task(turns.enter("door", 0.2))
    for _ in range(6):
        await asyncio.sleep(0.1)
        turns.proven("door")
    turns.leave("door")
    assert await waiting
