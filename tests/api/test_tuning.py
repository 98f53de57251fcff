"""OpenAI's own client, unmodified: it sends files, tunes, follows the events and asks the model that it gets back."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest

from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.follower import AdapterFollower
from gpu_workers.serve.schedule.rows import Limits
from processors.tuning.names import tuned_model
from rillfold.embedded.stack import Endpoints
from rillfold.settings import Settings
from rillfold.wiring import to_models
from schemas.adapters import RolloutDecided
from schemas.topics import TopicNames
from streams.errors import AppendFailed
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import Outgoing, Position
from tests.support.listening import OPERATOR, Listening
from tests.support.training import tiny_base
from tests.support.tuned import client_of, demo_lines, demo_pairs, line, talk
from tests.support.workbench import CPU
from tests.support.world import World, opened
from tests.train.test_trainer import Office

__all__ = ["tiny_base"]

FEW: dict[str, Any] = {"settings": {"rank": 2, "warmup": 1, "evaluation_rows": 2}}
SMALL: dict[str, Any] = {"n_epochs": 1, "batch_size": 8}
NAMES = TopicNames()


@dataclass
class House:
    """The API with everything behind it: its fold keeps up, a worker serves, and a worker trains while it is asked."""

    world: World
    office: Office
    client: openai.AsyncOpenAI
    stranger: openai.AsyncOpenAI

    @property
    def jobs(self) -> Any:
        return self.client.fine_tuning.jobs

    async def upload(self, content: bytes) -> Any:
        return await self.client.files.create(file=("rows.jsonl", content), purpose="fine-tune")

    async def create(self, **given: Any) -> Any:
        return await self.jobs.create(model="tiny", **({"extra_body": FEW} | given))

    async def until(self, job: str, true: Callable[[Any], bool]) -> Any:
        async with asyncio.timeout(120):
            while not true(found := await self.jobs.retrieve(job)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return found

    @asynccontextmanager
    async def trainer(self) -> AsyncIterator[None]:
        async with running(self.office.trainer().run(lambda: None)):
            yield


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


Open = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def house(stack: Endpoints, tmp_path: Path, tiny_base: Path, serve: Any) -> Open:
    """(log, serves) -> one; after a restart, another over the same log."""
    return partial(_housed, stack, tmp_path, tiny_base, serve)


@asynccontextmanager
async def _housed(
    stack: Endpoints, folder: Path, base: Path, serve: Any, log: MemoryLog, serves: bool = False
) -> AsyncIterator[House]:
    settings = Settings(
        data_dir=folder, base_model="tiny", base_models={"tiny": str(base)}, company_rate=10_000, company_bytes=1 << 40
    )
    office = Office(log, NAMES, folder, base)
    async with AsyncExitStack() as standing:
        models = None
        if serves:
            setup = EngineSetup(device=CPU, limits=Limits(rows=2, waiting=8))
            engine = embedded(str(base), folder / "cache", setup, office.store, name="tiny")
            await standing.enter_async_context(engine)
            url = await standing.enter_async_context(Listening(engine))
            headers = {"Authorization": f"Bearer {OPERATOR.token}"}
            models = await standing.enter_async_context(to_models(url, headers))
        world = await standing.enter_async_context(
            opened(stack, folder, serve, log=log, settings=settings, models=models)
        )
        await standing.enter_async_context(running(world.keep_up()))
        if serves:
            await standing.enter_async_context(running(AdapterFollower(log, NAMES, engine).run()))
        clients = [client_of(world.api, key) for key in (world.api.acme, world.api.globex)]
        for client in clients:
            await standing.enter_async_context(client)
        yield House(world, office, *clients)


async def test_a_file_is_tuned_with_followed_and_asked(house: Open) -> None:
    log = MemoryLog()
    async with house(log, serves=True) as one:
        kept = await _tuned_and_asked(one)
    async with house(log) as two:
        await _stands_after_a_restart(two, *kept)


async def _tuned_and_asked(one: House) -> tuple[Any, ...]:
    content, more = demo_lines(16), demo_lines(4, skip=16)
    sent, measured, pairs = await one.upload(content), await one.upload(more), await one.upload(demo_pairs(10))
    assert (sent.object, sent.status, sent.bytes) == ("file", "processed", len(content))
    assert sent.sha256 == hashlib.sha256(content).hexdigest()
    assert (await one.client.files.content(sent.id)).content == content
    assert [each.id async for each in one.client.files.list()] == [pairs.id, measured.id, sent.id]

    job = await one.create(
        training_file=sent.id,
        validation_file=measured.id,
        suffix="desk",
        seed=7,
        method={"type": "supervised", "supervised": {"hyperparameters": SMALL}},
    )
    assert (job.object, job.status, job.fine_tuned_model) == ("fine_tuning.job", "queued", None)
    assert (job.training_file, job.validation_file, job.seed) == (sent.id, measured.id, 7)
    assert (await one.jobs.checkpoints.list(job.id)).data == []
    dpo = await one.create(training_file=pairs.id, method={"type": "dpo", "dpo": {"hyperparameters": SMALL}})
    async with one.trainer():
        done = await one.until(job.id, lambda found: found.status in ("succeeded", "failed"))
        preferred = await one.until(dpo.id, lambda found: found.status in ("succeeded", "failed"))
    assert (done.status, done.error, done.fine_tuned_model) == ("succeeded", None, "ft:tiny:acme:desk:1")
    assert (preferred.status, preferred.error) == ("succeeded", None)
    assert preferred.fine_tuned_model == "ft:tiny:acme:tuned:1" and preferred.method.type == "dpo"
    await _is_what_the_log_says(one, done)
    await _follows(one, done)
    await _chats(one, done.fine_tuned_model)
    await _strangers_see_nothing(one, sent.id, done)
    await _cancels(one, sent.id)
    await _deletes(one, sent.id)
    return done, measured, more, await _story(one, done.id)


async def _story(house: House, job: str) -> list[Any]:
    return [each.to_dict() async for each in house.jobs.list_events(job)]


async def _is_what_the_log_says(one: House, done: Any) -> None:
    """Exactly the rows of its files: all of the one are learned, the other measured on, beside the fifth by hash."""
    ready = {event.adapter: event for event in await one.office.ready()}["acme/desk"]
    assert (done.adapter_sha256, done.dataset_sha256) == (ready.sha256, ready.manifest)
    accepted = next(e for e in await one.office.said() if e.type == "training.accepted" and e.run == done.id)
    assert accepted.examples == sum(map(_answers, demo_lines(16).splitlines()))
    assert ready.evaluation is not None and ready.evaluation.examples == 4


def _answers(row: bytes) -> int:
    return row.count(b'"role": "assistant"')


async def _follows(one: House, done: Any) -> None:
    told = [each async for each in one.jobs.list_events(done.id, limit=2)]
    messages = [each.message for each in reversed(told)]
    assert messages[0] == f"Created fine-tuning job: {done.id}" and done.fine_tuned_model in messages[-1]
    steps = [each for each in reversed(told) if each.type == "metrics" and each.data["phase"] == "train"]
    assert [each.data["step"] for each in steps] == list(range(1, len(steps) + 1)) and steps[-1].data["train_loss"] > 0
    assert len({each.id for each in told}) == len(told)
    assert [each.id async for each in one.jobs.list(limit=1)][1:] == [done.id]
    (checkpoint,) = (await one.jobs.checkpoints.list(done.id)).data
    assert checkpoint.fine_tuned_model_checkpoint == done.fine_tuned_model
    assert checkpoint.fine_tuning_job_id == done.id


async def _chats(one: House, model: str) -> None:
    hello: list[Any] = [{"role": "user", "content": "What do we know about customer Ada Grey?"}]
    await _known(one, model)
    said = await one.client.chat.completions.create(model=model, messages=hello, max_tokens=8, temperature=0)
    by_version = await one.client.chat.completions.create(
        model="acme/desk@1", messages=hello, max_tokens=8, temperature=0
    )
    assert said.model == model
    assert said.choices[0].message.to_dict() == by_version.choices[0].message.to_dict()
    for nobodys in ("ft:tiny:acme:desk:2", "ft:other:acme:desk:1", "ft:tiny:acme:desk"):
        with pytest.raises(openai.APIStatusError) as wrong:
            await one.client.chat.completions.create(model=nobodys, messages=hello)
        assert wrong.value.status_code in (400, 404), nobodys


async def _known(one: House, model: str) -> None:
    """The serving worker reads adapters as they come."""
    async with asyncio.timeout(60):
        while True:
            with suppress(openai.NotFoundError):
                assert (await one.client.models.retrieve(model)).id == model
                return
            await asyncio.sleep(0.05)


async def _strangers_see_nothing(one: House, file: str, done: Any) -> None:
    other = one.stranger
    assert (await other.files.list()).data == [] and (await other.fine_tuning.jobs.list()).data == []
    asked: list[Callable[[], Any]] = [
        lambda: other.files.retrieve(file),
        lambda: other.files.content(file),
        lambda: other.files.delete(file),
        lambda: other.fine_tuning.jobs.retrieve(done.id),
        lambda: other.fine_tuning.jobs.cancel(done.id),
        lambda: other.fine_tuning.jobs.list_events(done.id),
        lambda: other.fine_tuning.jobs.checkpoints.list(done.id),
        lambda: other.models.retrieve(done.fine_tuned_model),
        lambda: other.chat.completions.create(model=done.fine_tuned_model, messages=[{"role": "user", "content": "x"}]),
    ]
    for ask in asked:
        with pytest.raises(openai.NotFoundError) as nothing:
            await ask()
        assert (nothing.value.code, nothing.value.type) == ("not_found", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as nothing_there:
        await other.fine_tuning.jobs.create(model="tiny", training_file=file)
    assert nothing_there.value.param == "training_file"
    assert (await one.client.files.retrieve(file)).status == "processed"


async def _cancels(one: House, file: str) -> None:
    """Nobody trains now: it waits, and will not begin."""
    job = await one.create(training_file=file, suffix="desk")
    assert (await one.jobs.cancel(job.id)).status == "cancelled"
    async with one.trainer():
        found = await one.until(job.id, lambda found: found.finished_at is not None)
    assert (found.status, found.error, found.fine_tuned_model) == ("cancelled", None, None)
    with pytest.raises(openai.BadRequestError, match="nothing to cancel"):
        await one.jobs.cancel(job.id)
    assert (await one.jobs.checkpoints.list(job.id)).data == []


async def _deletes(one: House, file: str) -> None:
    assert (await one.client.files.delete(file)).deleted
    assert file not in [each.id async for each in one.client.files.list()]
    for ask in (one.client.files.retrieve, one.client.files.content, one.client.files.delete):
        with pytest.raises(openai.NotFoundError):
            await ask(file)
    with pytest.raises(openai.BadRequestError, match="no file"):
        await one.create(training_file=file)


async def _stands_after_a_restart(two: House, done: Any, measured: Any, content: bytes, story: list[Any]) -> None:
    """Another API, another database, folded from the log alone."""
    async with asyncio.timeout(60):
        while len((await two.client.files.list()).data) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    again = await two.client.files.retrieve(measured.id)
    assert again.to_dict() == measured.to_dict()
    assert (await two.client.files.content(measured.id)).content == content
    assert (await two.until(done.id, lambda found: found.status == "succeeded")).to_dict() == done.to_dict()
    assert await _story(two, done.id) == story
    back = RolloutDecided(
        id="back", company="acme", time=1, correlation="back", adapter="acme/desk", adapter_version=1, percent=0
    )
    await two.world.driver.log.append([to_outgoing(back, NAMES)])
    async with asyncio.timeout(60):
        while (await two.jobs.checkpoints.list(done.id)).data:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


class BreaksOff(MemoryLog):
    """The broker goes away after so many appends of a file."""

    left = 1_000

    async def append(self, records: Sequence[Outgoing]) -> Sequence[Position]:
        if any(record.topic == "company-data" for record in records):
            self.left -= 1
            if self.left < 0:
                raise AppendFailed("company-data", "the broker is away")
        return await super().append(records)


async def test_a_file_that_was_broken_off_is_none_and_is_sent_again(house: Open) -> None:
    log = BreaksOff()
    content = "".join(line(talk(f"What is due on day {n}?", "Nothing.")) for n in range(700)).encode()
    async with house(log) as one:
        log.left = 1
        with pytest.raises(openai.InternalServerError) as away:
            await one.upload(content)
        assert (away.value.status_code, away.value.type) == (503, "server_error")
        log.left = 1_000
    async with house(log) as two:
        assert sum((await log.ends("company-data")).values()) > 0, "half of it stands there"
        assert (await two.client.files.list()).data == []
        sent = await two.upload(content)
        assert [each.id for each in (await two.client.files.list()).data] == [sent.id]
        assert (await two.client.files.content(sent.id)).content == content


WRONG_JOBS: dict[str, tuple[dict[str, Any], str]] = {
    "a base that nobody has": ({"model": "gpt-9"}, "model"),
    "a model that was tuned": ({"model": "ft:tiny:acme:desk:1"}, "model"),
    "no such file": ({"training_file": "file-none"}, "training_file"),
    "a path": ({"training_file": "../../etc/passwd"}, "training_file"),
    "a validation file that is none": ({"validation_file": "file-none"}, "validation_file"),
    "a suffix that is no role": ({"suffix": "two words"}, "suffix"),
    "a file for another method": ({"method": {"type": "dpo"}}, "training_file"),
    "a setting that is unknown": ({"extra_body": {"settings": {"ranks": 4}}}, "settings"),
    "a setting that is the door's": ({"extra_body": {"settings": {"select": {}}}}, "settings"),
    "no epoch": ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs.constrained-int"),
    "another method": ({"method": {"type": "reinforcement"}}, "method.type"),
    "metadata": ({"metadata": {"a": "b"}}, "metadata"),
    "a field that is none": ({"extra_body": {"wandb": 1}}, "wandb"),
}


async def test_a_job_that_cannot_be_is_refused_at_once_and_names_what_is_wrong(
    house: Open,
) -> None:
    async with house(MemoryLog()) as one:
        sent = await one.upload(line(talk()).encode())
        for name, (given, param) in WRONG_JOBS.items():
            with pytest.raises(openai.APIStatusError) as wrong:
                await one.jobs.create(**({"model": "tiny", "training_file": sent.id} | given))
            assert wrong.value.status_code in (400, 422) and wrong.value.param == param, (name, wrong.value.body)
            assert wrong.value.type == "invalid_request_error"
        assert (await one.jobs.list()).data == [] and await one.world.api.events("training-request") == []


def test_the_name_of_a_tuned_model_is_read_back_and_nothing_else_is_one() -> None:
    name = "ft:org:base/x:a.b-c:desk:12"
    assert (found := tuned_model(name)) is not None and str(found) == name
    assert (found.base, found.adapter, found.version) == ("org:base/x", "a.b-c/desk", 12)
    for wrong in (
        "ft:b:acme:desk:0",
        "ft:b:acme:desk:x",
        "ft:b:acme:../x:1",
        "ft:b:a/b:d:1",
        "ft::acme:desk:1",
        "b",
    ):
        assert tuned_model(wrong) is None, wrong
