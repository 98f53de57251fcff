"""A user's own topic: declared, made beside ours, written to, folded, reacted to; named by prefix and map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rillfold.app.errors import BadApp
from rillfold.app.found import with_apps
from rillfold.testing.driver import Driver
from schemas.errors import Stop
from schemas.topics import BY_NAME, TopicNames, company_says
from streams.log.kafka import admin
from streams.log.memory import MemoryLog
from streams.log.outgoing import event_of, to_outgoing
from streams.log.port import EventLog
from streams.react.together import counts_of
from tests.api.conftest import serving
from tests.log.conftest import Faults, faults

__all__ = ["faults"]

ORDERS = """
from datetime import timedelta
from rillfold import Talk
from schemas.company import Message
from schemas.memory import MemoryNoted

app.topic("orders", partitions=2)
app.topic("clicks", retention=timedelta(days=7), compact=True)

@app.event("{type}", topic="orders")
class Paid:
    entity: str | None = None
    cents: int

@app.event("{type}.seen", topic="clicks")
class Seen:
    page: str

@app.projection("paid")
def paid(state: Total, event: Paid) -> Total:
    return Total(state.cents + event.cents)

@app.reaction(topic="clicks")
async def saw(event: Seen, emit: Emit) -> None:
    emit(MemoryNoted, memory=event.page, text="seen")

@app.rule("spent")
def spent(event: Paid) -> list[Talk]:
    asked, said = Message(role="user", content="Spent?"), Message(role="assistant", content=str(event.cents))
    return [Talk(agent="shop", messages=(asked, said))]
"""


@pytest.fixture
def orders(release: Any) -> Any:
    app = release(ORDERS.format(type="order.settled"))
    app.record()
    return app


def rows(d: Driver, paid: Any) -> list[Any]:
    """Its parts: entities spread them."""
    return [part for worker in d._fold_workers() for part in worker.row(paid, "acme")]


async def test_its_events_are_written_folded_learned_and_reacted_to_as_on_ours(
    orders: Any, log: EventLog, names: TopicNames
) -> None:
    with_apps([orders])
    sold = f"{names.prefix}sold"
    names = TopicNames(names.prefix, {"orders": sold})
    async with Driver(log, orders, names=names) as d:
        for entity in ("a", "b", None):
            await d.send({"type": "order.settled", "company": "acme", "cents": 5, "entity": entity})
        await d.send({"type": "order.settled.seen", "company": "acme", "page": "start"})
        await d.settle()
        assert len(await log.ends(sold)) == 2 and await admin.check(log, names) == []
        assert sum(row.cents for row in rows(d, orders.projections["paid"])) == 15
        assert await d.digest(orders.projections["paid"]) == await d.refold(orders.projections["paid"])
        assert [event.type for event in await d.events("company-data")] == ["memory.noted"]
        assert [each.answer.content for each in await d.dataset("acme", "spent.v1")] == ["5"]


CLICKS = """
from datetime import timedelta
from schemas.memory import MemoryNoted

app.topic("hits", retention=timedelta(days=7))

@app.event("page.hit", topic="hits")
class Hit:
    page: str

@app.reaction(topic="hits")
async def saw(event: Hit, emit: Emit) -> None:
    emit(MemoryNoted, memory=event.page, text="seen")

@app.reaction(topic="hits")
async def too(event: Hit, emit: Emit) -> None: ...
"""


async def test_what_expires_before_a_reaction_has_read_it_is_named_counted_and_passed(
    release: Any, log: EventLog, names: TopicNames, faults: Faults, caplog: Any
) -> None:
    app = release(CLICKS)
    app.record()
    wire = names.wire("hits")

    async def seen() -> list[str]:
        async with Driver(log, app, names=names) as d:
            await d.settle()
            counted.append(counts_of([each._reactor for each in d._workers.values()])["reactions_expired"][1])
            return [event.memory for event in await d.events("company-data")]

    counted = list[float]()
    async with Driver(log, app, names=names) as d:
        hit = {"type": "page.hit", "company": "acme"}
        _, at, _ = await d.send(hit | {"page": "p0"})
        await d.settle()
    for n in range(1, 6):
        await log.append([to_outgoing(event_of(hit | {"page": f"p{n}"}, lambda: "i", 1), names)])
    before = (await log.ends(wire))[at]
    await faults.truncate(wire, at, before)
    await log.append([to_outgoing(event_of(hit | {"page": "last"}, lambda: "i", 1), names)])
    assert [await seen(), await seen()] == 2 * [["p0", "last"]]
    assert f"{wire}/{at}" in caplog.text and f", {before})" in caplog.text and "expired" in caplog.text
    assert counted[0] >= 2 * 5 and counted[1] == 0


async def test_what_is_no_event_where_no_fold_reads_has_one_letter(
    release: Any, log: EventLog, names: TopicNames
) -> None:
    app = release(CLICKS)
    app.record()
    async with Driver(log, app, names=names) as d:
        await d.send({"type": "page.hit", "company": "acme", "page": "p0"})
        await d.crash("saw", at="decoded")
        stranger = {"type": "memory.noted", "id": "m", "company": "acme", "time": 1, "memory": "m", "text": "t"}
        bad = [b'{"type":"page.hit","company":"acme"}', b"{", json.dumps(stranger | {"correlation": "m"}).encode()]
        for value in bad:
            await d.send_bytes("hits", value, b"acme")
        await d.settle()
        await d.crash("saw")
        await d.settle()
        letters = await d.dead_letters()
        assert sorted(each.value for each in letters) == sorted(bad)
        assert {each.company for each in letters} == {"acme"} and "wrong_topic" in {each.reason for each in letters}
        assert len(await d.events("company-data")) == 1


async def test_it_is_written_to_by_http_and_by_its_company_alone(orders: Any, tmp_path: Path) -> None:
    there, log = with_apps([orders]), MemoryLog()
    await log.create(admin.wanted(TopicNames()))
    async with serving(tmp_path, log, installed=there) as api:
        paid = [{"type": "order.settled", "entity": f"e{n}", "cents": n} for n in range(4)]
        placed = await api.ask("POST", "/topics/orders", api.acme, json=paid)
        assert (placed.status_code, len(placed.json())) == (201, 4), placed.text
        for topic, given, status, code in (
            ("orders", paid[0] | {"cents": "five"}, 422, "wrong_type"),
            ("orders", paid[0] | {"company": "globex"}, 404, "not_found"),
            ("orders", {"type": "order.settled.seen", "page": "p"}, 422, "wrong_topic"),
            ("company-data", paid[0], 422, "wrong_topic"),
        ):
            refused = await api.ask("POST", f"/topics/{topic}", api.acme, json=[paid[0], given])
            assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
        written = await api.events("orders")
        assert sorted((each.company, each.entity, each.cents) for each in written) == [
            ("acme", f"e{n}", n) for n in range(4)
        ]


def test_what_makes_ours_makes_it_and_a_company_may_write_to_it(orders: Any) -> None:
    with_apps([orders])
    names = TopicNames("north-", {"orders": "sold"}, {"orders": 3})
    specs = {spec.name: spec for spec in admin.wanted(names)}
    assert specs["sold"].partitions == 3 and specs["sold"].config["retention.ms"] == "-1"
    clicks = specs["north-clicks"]
    assert (clicks.config["cleanup.policy"], clicks.config["retention.ms"]) == ("compact,delete", str(7 * 86_400_000))
    assert clicks.config["message.timestamp.type"] == "LogAppendTime", "who writes there does not say when it goes"
    assert "message.timestamp.type" not in specs["sold"].config
    older = clicks._replace(config={**clicks.config, "cleanup.policy": "compact"})
    (difference,) = admin.differences(clicks, older)
    assert difference.remedy.endswith("--add-config cleanup.policy=[compact,delete]")
    assert names.ours("sold") == "orders" and {each.__name__ for each in names.events_on("sold")} == {"Paid"}
    assert all(map(company_says, orders.events))
    with pytest.raises(Stop, match="Two topics would have one name"):
        TopicNames("", {"orders": "clicks"})


def test_without_it_its_name_is_none_of_ours() -> None:
    assert "orders" not in BY_NAME
    with pytest.raises(Stop, match="names orders"):
        TopicNames("", {"orders": "sold"})


TOPIC = "from datetime import timedelta\napp.topic({})\n"
SEEN = TOPIC.format('"clicks", compact=True') + '@app.event("a.seen", topic="clicks")\nclass Seen:\n    page: str\n'
WRONG = {
    "name_of_ours": (TOPIC.format('"company-data"'), ["'company-data'", "Rillfold has one"]),
    "name_of_no_form": (TOPIC.format('"Orders"'), ["'Orders'", "lower letters"]),
    "name_of_a_changelog": (TOPIC.format('"rillfold-x"'), ["'rillfold-x'", "not rillfold"]),
    "name_twice": (2 * TOPIC.format('"orders"'), ["'orders'", "shop has a topic"]),
    "no_partitions": (TOPIC.format('"orders", partitions=0'), ["0 partitions", "1 to 1000"]),
    "no_time": (TOPIC.format('"orders", retention=7'), ["for 7", "timedelta"]),
    "no_time_at_all": (TOPIC.format('"orders", retention=timedelta(0)'), ["timedelta(0)"]),
    "compact_by_a_word": (TOPIC.format('"orders", compact="yes"'), ["'yes'", "True or False"]),
    "an_event_elsewhere": (
        TOPIC.format('"orders"') + '@app.event("a.b", topic="order")\nclass B:\n    n: int\n',
        ["'order'", "company-data, orders"],
    ),
    "a_fold_of_what_goes": (
        SEEN + '@app.projection("p")\ndef p(state: Total, event: Seen) -> Total: ...\n', ["Seen", "does not keep all"],
    ),
    "a_rule_of_what_goes": (SEEN + '@app.rule("r")\ndef r(event: Seen): ...\n', ["Seen", "does not keep all"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_topic_that_is_wrong_is_named_with_its_place(case: str, refused: Any) -> None:
    refused(*WRONG[case])


def test_two_applications_with_one_topic(release: Any) -> None:
    with pytest.raises(BadApp, match="Two applications have a topic 'orders'"):
        with_apps([release('app.topic("orders")\n') for _ in range(2)])
