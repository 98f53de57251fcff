"""The driver's inputs: events, bytes, time, crash, rebalance; and what can be asked of it."""

from __future__ import annotations

import time

import msgspec
import pytest

from projections.companies import COMPANIES
from projections.company_tools import COMPANY_TOOLS
from projections.datasets import DATASETS
from projections.jobs import JOBS, effect_id
from rillfold.testing.clock import EPOCH_MS, VirtualClock
from rillfold.testing.driver import Driver
from schemas.company import CompanyRegistered
from schemas.envelope import derived_id
from schemas.errors import Stop
from schemas.rejected import Unusable
from streams.log.memory import MemoryLog
from streams.log.port import EventLog

STEPS = ("decoded", "published", "appended", "stored")
COMPANY = {"type": "company.registered", "company": "acme", "name": "Acme"}


async def whole(d, *projections) -> None:
    """The workers' rows are what a fresh fold of the log gives."""
    await d.settle()
    for projection in projections:
        assert await d.digest(projection) == await d.refold(projection)


class TestQuery:
    async def test_a_row_is_there_once_it_is_settled(self, drive) -> None:
        d = await drive([COMPANIES])
        await d.send(COMPANY)
        assert d.query(COMPANIES, "acme") is None
        await d.settle()
        assert d.query(COMPANIES, "acme").name == "Acme"

    async def test_a_row_that_never_was_is_none(self, drive) -> None:
        d = await drive([COMPANIES])
        await d.settle()
        assert d.query(COMPANIES, "nobody") is None

    async def test_parts_on_several_partitions_are_put_together(self, drive, accounts, payment) -> None:
        d = await drive([accounts], workers=2)
        places = [await d.send(payment(1, entity=f"e{n}")) for n in range(12)]
        assert len({place.partition for place in places}) > 1
        await d.settle()
        assert (d.query(accounts, "acme").payments, d.query(accounts, "acme").total) == (12, 12)

    async def test_several_projections_fold_the_same_topic(self, drive) -> None:
        d = await drive([COMPANIES, DATASETS])
        await d.send(COMPANY)
        await d.send({"type": "text.ingested", "company": "acme", "text": "x"})
        await whole(d, COMPANIES, DATASETS)
        assert d.query(COMPANIES, "acme") is not None
        assert d.query(DATASETS, "acme/text.ingested") is not None

    async def test_an_empty_log_has_a_digest_too(self, drive, accounts) -> None:
        await whole(await drive([accounts]), accounts)

    async def test_typed_events_are_taken_as_they_are(self, drive) -> None:
        d = await drive([COMPANIES])
        await d.send(CompanyRegistered(id="7", company="acme", time=5, correlation="7", name="Typed"))
        await d.settle()
        assert d.query(COMPANIES, "acme").updated_by == "7"


class TestClock:
    async def test_events_bear_the_drivers_time(self, drive) -> None:
        d = await drive([COMPANIES])
        began = d.clock()
        d.clock.advance(60)
        await d.send(COMPANY)
        await d.settle()
        assert d.query(COMPANIES, "acme").registered_at == (began + 60_000) * 1000

    async def test_what_follows_bears_the_time_of_its_cause(self, drive, accounts, payment) -> None:
        d = await drive([accounts])
        began = d.clock()
        await d.send(payment(100))
        d.clock.advance(3600)
        await d.settle()
        (warning,) = await d.events("adapter-request")
        assert warning.time == began * 1000

    async def test_a_run_in_memory_begins_at_the_same_time_and_one_on_a_broker_now(self, log: EventLog) -> None:
        """A broker deletes by its own clock what is older than its topic keeps it."""
        began = Driver(log).clock()
        assert began == EPOCH_MS if isinstance(log, MemoryLog) else abs(began - time.time() * 1000) < 60_000

    def test_it_stands_still_and_never_goes_back(self) -> None:
        clock = VirtualClock(5)
        assert (clock(), clock()) == (5, 5)
        clock.advance(0.25)
        assert clock() == 255
        with pytest.raises(AssertionError):
            clock.advance(-1)

    async def test_ids_are_counted_so_that_a_run_repeats(self, drive, accounts, payment) -> None:
        d = await drive([accounts])
        for _ in range(2):
            await d.send(payment(1))
        first, second = await d.events("company-data")
        assert (first.id, second.id) == (derived_id("driver", 1), derived_id("driver", 2))


class TestCrash:
    @pytest.mark.parametrize("step", STEPS)
    async def test_at_any_step_the_rows_stay_exact(self, drive, accounts, payment, step: str) -> None:
        d = await drive([accounts])
        await d.send(payment(1))
        await d.settle()
        await d.crash("worker-1", at=step)
        for n in range(5):
            await d.send(payment(n))
        await whole(d, accounts)
        assert d.query(accounts, "acme").payments == 6

    @pytest.mark.parametrize("step", STEPS)
    async def test_the_first_batch_is_no_exception(self, drive, accounts, payment, step: str) -> None:
        d = await drive([accounts])
        await d.crash("worker-1", at=step)
        await d.send(payment(7))
        await whole(d, accounts)
        assert d.query(accounts, "acme").total == 7

    @pytest.mark.parametrize("step", STEPS)
    async def test_what_follows_stands_in_the_log_once(self, drive, accounts, payment, step) -> None:
        d = await drive([accounts])
        await d.crash("worker-1", at=step)
        await d.send(payment(60))
        await d.send(payment(60))
        await whole(d, accounts)
        assert len(await d.events("adapter-request")) == 1

    @pytest.mark.parametrize("passes", [1, 2, 3])
    async def test_a_later_pass_of_a_step(self, drive, accounts, payment, passes: int) -> None:
        d = await drive([accounts])
        await d.crash("worker-1", at="appended", passes=passes)
        for _ in range(4):
            await d.send(payment(1))
            await d.settle()
        await whole(d, accounts)
        assert d.query(accounts, "acme").payments == 4

    async def test_between_two_steps_too(self, drive, accounts, payment) -> None:
        d = await drive([accounts])
        await d.send(payment(1))
        await d.settle()
        await d.crash("worker-1")
        await d.send(payment(2))
        await whole(d, accounts)
        assert d.query(accounts, "acme").total == 3

    async def test_memory_comes_back_from_the_changelog(self, drive, accounts, payment) -> None:
        d = await drive([accounts])
        await d.send(payment(5))
        await d.settle()
        await d.crash("worker-1")
        assert d.query(accounts, "acme") is None
        await d.send(payment(1, company="other"))
        await d.settle()
        assert d.query(accounts, "acme").total == 5

    async def test_every_worker_at_once(self, drive, accounts, payment) -> None:
        d = await drive([accounts], workers=3)
        for n in range(12):
            await d.send(payment(1, entity=f"e{n}"))
        await d.settle()
        for name in ("worker-1", "worker-2", "worker-3"):
            await d.crash(name)
        for n in range(12):
            await d.send(payment(1, entity=f"e{n}"))
        await whole(d, accounts)
        assert d.query(accounts, "acme").payments == 24

    async def test_an_unknown_step_is_refused(self, drive, accounts) -> None:
        d = await drive([accounts])
        with pytest.raises(Stop, match="stored"):
            await d.crash("worker-1", at="lunch")


class TestRebalance:
    async def test_nothing_is_lost_or_counted_twice(self, drive, accounts, payment) -> None:
        d = await drive([accounts], workers=2)
        for n in range(8):
            await d.send(payment(1, entity=f"e{n}"))
        await d.settle()
        await d.rebalance()
        for n in range(8):
            await d.send(payment(1, entity=f"e{n}"))
        await whole(d, accounts)
        assert d.query(accounts, "acme").payments == 16

    async def test_in_the_middle_of_the_work(self, drive, accounts, payment) -> None:
        d = await drive([accounts], workers=2)
        for n in range(8):
            await d.send(payment(1, entity=f"e{n}"))
            if n % 4 == 3:
                await d.rebalance()
        await whole(d, accounts)
        assert d.query(accounts, "acme").payments == 8

    @pytest.mark.parametrize("step", STEPS)
    async def test_and_a_crash_in_it(self, drive, accounts, payment, step: str) -> None:
        d = await drive([accounts], workers=2)
        for worker in ("worker-1", "worker-2"):
            await d.crash(worker, at=step)
        for n in range(8):
            await d.send(payment(1, entity=f"e{n}"))
        await d.rebalance()
        await whole(d, accounts)
        assert d.query(accounts, "acme").payments == 8


class TestPoison:
    async def test_it_goes_to_the_dead_letters_byte_for_byte(self, drive, accounts, payment) -> None:
        d = await drive([accounts])
        await d.send(payment(1))
        place = await d.send_bytes("company-data", b"\xff\x00junk", key=b"acme")
        await d.send(payment(2))
        await whole(d, accounts)
        (letter,) = await d.dead_letters()
        assert (letter.key, letter.value, letter.reason) == (b"acme", b"\xff\x00junk", "unknown_framing")
        assert (letter.topic, letter.partition, letter.offset) == place
        assert d.query(accounts, "acme").total == 3

    async def test_a_crash_repeats_it_under_the_same_id(self, drive, accounts) -> None:
        d = await drive([accounts])
        await d.crash("worker-1", at="published")
        await d.send_bytes("company-data", b"junk")
        await whole(d, accounts)
        assert len({letter.id for letter in await d.dead_letters()}) == 1

    async def test_json_from_strangers_is_as_good_as_ours(self, drive) -> None:
        d = await drive([COMPANIES])
        await d.send_bytes("company-data", b'{"type":"company.registered","company":"acme","name":"By hand"}', b"acme")
        await whole(d, COMPANIES)
        assert d.query(COMPANIES, "acme").name == "By hand"
        assert await d.dead_letters() == []

    async def test_what_is_no_event_is_not_sent(self, drive) -> None:
        d = await drive([COMPANIES])
        with pytest.raises(Unusable, match="unknown_event"):
            await d.send({"type": "company.dissolved", "company": "acme"})
        assert await d.events("company-data") == []

    async def test_an_answer_beside_its_question_is_refused_however_the_topics_interleave(self, drive) -> None:
        """Nothing orders one topic against another: it would come before the true answer, or after."""
        d = await drive([JOBS])
        await d.send({"type": "job.requested", "company": "acme", "id": "r1", "job": "j1", "task": "Refund A1."})
        forged = {"type": "inference.completed", "company": "acme", "request": effect_id("r1"), "text": "Forged."}
        figures = {"job": "j1", "finish_reason": "stop", "model": "m", "prompt_tokens": 1, "completion_tokens": 1}
        await d.send_bytes("automation-job", msgspec.json.encode({**forged, **figures}), b"acme/j1")
        await whole(d, JOBS)
        (letter,) = await d.dead_letters()
        assert (letter.reason, letter.company) == ("wrong_topic", "acme")
        assert d.query(JOBS, "acme/j1").replies == ()


class TestTools:
    """A projection of the product, by nothing but the kit."""

    @staticmethod
    def tool(**more: object) -> dict[str, object]:
        row = {"type": "tool.registered", "company": "acme", "name": "crm", "description": "d", "parameters": "{}"}
        return {**row, "endpoint": "https://crm.example/api", "auth": {"kind": "none"}, **more}

    async def test_registering_again_replaces(self, drive) -> None:
        d = await drive([COMPANY_TOOLS])
        await d.send(self.tool())
        await d.send(self.tool(description="better"))
        await whole(d, COMPANY_TOOLS)
        row = d.query(COMPANY_TOOLS, "acme/crm")
        assert (row.description, row.revision, row.active) == ("better", 2, True)

    async def test_revoking_keeps_the_row_and_the_reason(self, drive) -> None:
        d = await drive([COMPANY_TOOLS])
        await d.send(self.tool())
        await d.send({"type": "tool.revoked", "company": "acme", "name": "crm", "reason": "old"})
        await whole(d, COMPANY_TOOLS)
        assert (d.query(COMPANY_TOOLS, "acme/crm").active, d.query(COMPANY_TOOLS, "acme/crm").reason) == (False, "old")

    async def test_companies_do_not_see_each_other(self, drive) -> None:
        d = await drive([COMPANY_TOOLS])
        await d.send(self.tool())
        await d.send(self.tool(company="globex", description="theirs"))
        await whole(d, COMPANY_TOOLS)
        assert d.query(COMPANY_TOOLS, "acme/crm").description == "d"
        assert d.query(COMPANY_TOOLS, "globex/crm").description == "theirs"

    @pytest.mark.parametrize("step", STEPS)
    async def test_a_crash_counts_no_registration_twice(self, drive, step: str) -> None:
        d = await drive([COMPANY_TOOLS])
        await d.crash("worker-1", at=step)
        await d.send(self.tool())
        await d.send(self.tool(description="better"))
        await whole(d, COMPANY_TOOLS)
        assert d.query(COMPANY_TOOLS, "acme/crm").revision == 2
