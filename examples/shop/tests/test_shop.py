"""The shop on the test kit: no broker, no sleep, and the same fold as a worker's."""

import asyncio

from shop.app import app, parcels, revenue, signed

from rillfold import ToolRequest
from rillfold.testing.driver import Driver
from streams.log.memory import MemoryLog


def paid(order: str, cents: int, company: str = "acme") -> dict[str, object]:
    return {"type": "order.paid", "company": company, "order": order, "day": "2026-11-02", "cents": cents}


async def sold() -> None:
    async with Driver(MemoryLog(), app, workers=2) as d:
        for n in range(10):
            await d.send(paid(f"order-{n}", 100))
        for place in ("Ulm", "Bern"):
            await d.send({"type": "parcel.scanned", "company": "acme", "parcel": "p-1", "at": place})
        await d.crash("worker-1", at="appended")
        await d.send(paid("order-10", -5))
        await d.send(paid("order-11", 1, company="globex"))
        await d.send_bytes("company-data", b'{"type": "order.paid", "company": "acme", "order": "order-12"}')
        await d.settle()
        assert d.query(revenue, "acme/2026-11-02").cents == 1_000
        assert d.query(revenue, "globex/2026-11-02").cents == 1
        (refused,) = d.refused(revenue)
        assert "at least 0" in refused.detail
        (letter,) = await d.dead_letters()
        assert letter.reason == "wrong_type"
        parcel = d.query(parcels, "acme/p-1")
        assert (parcel.at, parcel.scans) == ("Bern", 2)
        assert await d.digest(parcels) == await d.refold(parcels)
        assert await d.digest(revenue) == await d.refold(revenue)


async def noted() -> None:
    async with Driver(MemoryLog(), app) as d:
        for n in range(6):
            await d.send(paid(f"order-{n}", 100_000 * (n % 2), company=("acme", "globex", "initech")[n // 2]))
        await d.crash("note", at="decoded", passes=4)
        await d.rebalance("note")
        await d.crash("note", at="appended")
        await d.settle()
        memories = [event for event in await d.events("company-data") if event.type == "memory.noted"]
        assert sorted((each.company, each.memory) for each in memories) == [
            ("acme", "order-1"),
            ("globex", "order-3"),
            ("initech", "order-5"),
        ]


async def taught() -> None:
    async with Driver(MemoryLog(), app) as d:
        for order, cents in (("order-1", 1_250), ("order-1", 1_250), ("order-2", 7), ("order-3", -5)):
            await d.send(paid(order, cents))
        await d.send(paid("order-4", 1, company="globex"))
        rows = await d.dataset("acme", "orders.v1")
        assert sorted(row.answer.content for row in rows) == ["It came to 0.07.", "It came to 12.50."]


def test_agents_learn_what_an_order_came_to_and_of_no_other_company() -> None:
    asyncio.run(taught())


def test_a_large_order_is_noted_once_whatever_happens() -> None:
    asyncio.run(noted())


def test_the_till_is_asked_under_a_signature_of_that_very_request() -> None:
    made = [signed("s", ToolRequest("POST", url, b"{}", "k"), 1_000_000) for url in ("https://a/", "https://a/b")]
    assert {each["X-Till-Time"] for each in made} == {"1"}
    assert len({each["X-Till-Signature"] for each in made}) == 2 and "s" not in made[0].values()


def test_revenue_is_what_was_paid_whatever_happens() -> None:
    asyncio.run(sold())
