"""Producing by REST: whole batches, checked first, in every encoding, for one's own company."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import generate_latest

from schemas.codec.codec import encode
from schemas.company import TextIngested
from schemas.envelope import Event
from schemas.jobs import JobCompleted
from schemas.training import TrainingRequested


def text(company: str = "acme", **changes: Any) -> TextIngested:
    return TextIngested(
        **{"id": "e1", "company": company, "time": 1, "correlation": "e1", "text": "A fact.", **changes}
    )


async def test_json_one_and_many(api) -> None:
    one = await api.ask("POST", "/topics/company-data", api.acme, json={"type": "text.ingested", "text": "One."})
    assert one.status_code == 201
    many = [{"type": "text.ingested", "text": f"{n}", "id": f"e{n}"} for n in range(3)]
    answer = await api.ask("POST", "/topics/company-data", api.acme, json=many)
    assert [(place["id"], place["offset"]) for place in answer.json()] == [("e0", 1), ("e1", 2), ("e2", 3)]
    events = await api.events("company-data")
    assert [event.text for event in events] == ["One.", "0", "1", "2"]
    assert {event.company for event in events} == {"acme"}


async def test_avro(api) -> None:
    answer = await api.ask(
        "POST", "/topics/company-data", api.acme, content=encode(text()), headers={"Content-Type": "avro/binary"}
    )
    assert answer.status_code == 201
    assert await api.events("company-data") == [text()]


@pytest.mark.parametrize(
    ("topic", "body", "status", "code"),
    [
        ("company-data", [{"type": "text.ingested", "text": "ok"}, {"type": "text.ingested"}], 422, "wrong_type"),
        ("company-data", [{"type": "text.ingested", "text": "ok"}, {"type": "nonsense"}], 422, "unknown_event"),
        ("company-data", [{"type": "text.ingested", "text": "x", "company": "globex"}], 404, "not_found"),
        ("company-data", [{"type": "training.requested", "base_model": "m"}], 422, "wrong_topic"),
        ("automation-job", [{"type": "job.completed", "job": "j", "answer": "", "steps": 1}], 403, "forbidden"),
        ("company-data", [], 422, "batch_size"),
        ("company-data", ["x"], 422, "wrong_type"),
        ("no-such-topic", [{"type": "text.ingested", "text": "ok"}], 404, "not_found"),
    ],
)
async def test_a_batch_with_a_wrong_event_is_refused_as_a_whole(api, topic, body, status, code) -> None:
    answer = await api.ask("POST", f"/topics/{topic}", api.acme, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert await api.events("company-data") == []
    assert await api.events("automation-job") == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xff", b"[" * 100_000])
async def test_broken_bodies(api, content: bytes) -> None:
    for kind in ("application/json", "avro/binary"):
        answer = await api.ask(
            "POST", "/topics/company-data", api.acme, content=content, headers={"Content-Type": kind}
        )
        assert answer.status_code == 422
        assert set(answer.json()["error"]) == {"code", "message", "detail"}


async def test_json_that_says_it_is_bytes_gets_ids_of_its_own(api) -> None:
    """Two requests, of one company or of two, are two events."""
    for key, company in ((api.acme, "acme"), (api.acme, "acme"), (api.globex, "globex")):
        body = b'{"type": "text.ingested", "company": "%s", "text": "same"}' % company.encode()
        headers = {"Content-Type": "application/octet-stream"}
        answer = await api.ask("POST", "/topics/company-data", key, content=body, headers=headers)
        assert answer.status_code == 201
    assert len({event.id for event in await api.events("company-data")}) == 3


async def test_another_companys_avro_is_not_taken(api) -> None:
    answer = await api.ask(
        "POST", "/topics/company-data", api.globex, content=encode(text()), headers={"Content-Type": "avro/binary"}
    )
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("event", "topic"),
    [
        (TrainingRequested(id="t", company="acme", time=1, correlation="t", base_model="m"), "training-request"),
        (JobCompleted(id="t", company="acme", time=1, correlation="t", job="j", answer="", steps=1), "automation-job"),
    ],
)
async def test_the_admin_may_say_everything(api, event: Event, topic: str) -> None:
    answer = await api.ask(
        "POST", f"/topics/{topic}", api.admin, content=encode(event), headers={"Content-Type": "avro/binary"}
    )
    assert answer.status_code == 201
    assert await api.events(topic) == [event]


async def test_bodies_are_bounded_announced_or_not(api) -> None:
    large = b"x" * ((8 << 20) + 1)

    async def unannounced() -> Any:
        yield large

    for content in (large, unannounced()):
        answer = await api.ask("POST", "/topics/company-data", api.acme, content=content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


async def test_errors_and_answers_have_one_shape_and_are_not_cached(api) -> None:
    for method, path in (("GET", "/nowhere"), ("DELETE", "/companies"), ("GET", "/health")):
        answer = await api.ask(method, path)
        assert answer.headers["cache-control"] == "no-store"
        if answer.is_error:
            assert set(answer.json()["error"]) == {"code", "message", "detail"}


async def test_metrics_count_by_route_and_never_by_path(api) -> None:
    await api.ask("POST", "/topics/company-data", api.acme, json={"type": "text.ingested", "text": "One."})
    await api.ask("POST", "/topics/somewhere-else", api.acme, json={})
    counted = generate_latest(api.registry).decode()
    assert 'route="/topics/{topic}",status="201"} 1.0' in counted
    assert "somewhere-else" not in counted
    assert (await api.ask("GET", "/metrics", api.acme)).status_code == 404


async def test_a_method_of_ones_own_makes_no_series(api) -> None:
    for n in range(20):
        await api.ask(f"M{n}", "/projections", api.acme)
    counted = generate_latest(api.registry).decode()
    assert 'method="other",route="/projections",status="405"} 20.0' in counted
    assert "M7" not in counted


async def test_a_job_is_taken_back_by_an_event_of_its_own_company(api) -> None:
    wish = {"type": "job.withdrawn", "job": "j1", "reason": "a slip"}
    for key, company, status in ((api.acme, None, 201), (api.globex, "acme", 404), (api.admin, "acme", 201)):
        whose = {} if company is None else {"company": company}
        assert (await api.ask("POST", "/topics/automation-job", key, json=wish | whose)).status_code == status
    assert [(each.company, each.job) for each in await api.events("automation-job")] == [("acme", "j1")] * 2
