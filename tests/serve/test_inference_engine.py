"""The behaviour that any inference engine owes, on the embedded one: the named adapter's answer or a Failure."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import weakref
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
from safetensors.torch import load_file, save_file

from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.bases.chat import Chat
from gpu_workers.refused import BaseMismatch, EngineStopped, UnknownAdapter, UnusableAdapter
from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.port import AdapterKey, AdapterSpec, Answer, Failure, InferenceEngine, Outcome, Question
from gpu_workers.serve.schedule.rows import Limits
from rillfold.workers.beside import until_it_stops
from rillfold.workers.run import world
from schemas.company import Message, ToolUse
from tests.support.workbench import CPU, FINE, HOSTILE, Workbench, ask

TOOLS = json.dumps([{"name": "lookup", "description": "Find.", "parameters": {"type": "object"}}])


@pytest.fixture
async def engine(bench: Workbench) -> AsyncIterator[InferenceEngine]:
    serving = EngineSetup(device=CPU, limits=Limits(rows=8, waiting=64), capacity=3)
    async with embedded(str(bench.base), bench.root / "cache", serving) as engine:
        yield engine


def said(outcome: Outcome) -> str:
    assert isinstance(outcome, Answer), outcome
    return outcome.text


def reason(outcome: Outcome) -> str:
    assert isinstance(outcome, Failure), outcome
    return outcome.reason


async def answers(engine: InferenceEngine, questions: Sequence[Question]) -> list[Outcome]:
    return list(await asyncio.gather(*(engine.answer(question) for question in questions)))


async def test_each_row_of_a_batch_is_answered_by_its_own_adapter(bench: Workbench, engine: InferenceEngine) -> None:
    specs = [bench.adapter(f"acme/role{i}", seed=i, r=4 * (i + 1)) for i in range(3)]
    for spec in specs:
        await engine.load(spec)
    rows = [None, *specs, *specs, None]
    names = [spec.key.name if spec else None for spec in rows]
    questions = [ask(f"Number {i}?", name, tools=TOOLS) for i, name in enumerate(names)]
    outcomes = await answers(engine, questions)
    expected = [bench.peft(spec, question) for spec, question in zip(rows, questions, strict=True)]
    assert [said(outcome) for outcome in outcomes] == expected
    assert len(set(expected)) > 4, "the adapters must differ for this to mean anything"


async def test_what_is_not_there_is_refused_and_never_the_base(bench: Workbench, engine: InferenceEngine) -> None:
    await engine.load(bench.adapter("acme/sales", seed=1))
    outcomes = await answers(
        engine, [ask("Hi", "acme/nobody"), ask("Hi", "acme/sales", 7), ask("Hi", ""), ask("Hi", "acme/sales")]
    )
    assert [reason(each) for each in outcomes[:3]] == ["unknown_adapter", "unknown_adapter_version", "unknown_adapter"]
    assert said(outcomes[3])


async def test_another_companys_adapter_is_unknown_and_the_operator_asks_any(
    bench: Workbench, engine: InferenceEngine
) -> None:
    spec = bench.adapter("acme/own", seed=1)
    await engine.load(spec)
    asked = [ask("Hi", "acme/own", company=company) for company in ("globex", "acme", None, "acme/own", "")]
    outcomes = await answers(engine, asked)
    absent = await engine.answer(ask("Hi", "acme/none", company="acme"))
    assert [reason(each) for each in (outcomes[0], *outcomes[3:], absent)] == ["unknown_adapter"] * 4
    assert {said(each) for each in outcomes[1:3]} == {bench.peft(spec, asked[0])}


@pytest.mark.parametrize(("width", "why"), [(1_000, "has no place"), (1 << 26, "no adapter of this base")])
async def test_what_fits_nowhere_is_refused_by_its_header_before_it_is_read(
    bench: Workbench, engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch, width: int, why: str
) -> None:
    spec = bench.adapter("acme/wide", seed=5)
    folder = bench.root / f"wide-{width}"
    shutil.copytree(spec.folder, folder)
    entries, at = {}, 0
    for side, shape in (("A", [8, width]), ("B", [64, 8])):
        size = 4 * shape[0] * shape[1]
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        entries[f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight"] = entry
        at += size
    header = json.dumps(entries).encode()
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + at)  # a hole: nothing of it is on the disk
    for reads in ("read_adapter", "own_copy"):
        monkeypatch.setattr(f"gpu_workers.serve.engines.start.{reads}", lambda *_: pytest.fail("it was read"))
    with pytest.raises(UnusableAdapter, match=why):
        await engine.load(msgspec.structs.replace(spec, folder=folder))


async def test_an_adapter_of_another_base_is_refused(bench: Workbench, engine: InferenceEngine) -> None:
    spec = msgspec.structs.replace(bench.adapter("acme/moved"), base_sha256="0" * 64)
    with pytest.raises(BaseMismatch):
        await engine.load(spec)
    assert reason(await engine.answer(ask("Hi", "acme/moved"))) == "base_mismatch"


async def test_a_flipped_byte_is_refused(bench: Workbench, engine: InferenceEngine) -> None:
    spec = bench.adapter("acme/flipped", seed=3)
    copy = bench.root / "flipped"
    shutil.copytree(spec.folder, copy)
    tensors = copy / "adapter_model.safetensors"
    body = bytearray(tensors.read_bytes())
    body[-1] ^= 1
    tensors.write_bytes(body)
    with pytest.raises(UnusableAdapter, match="altered"):
        await engine.load(msgspec.structs.replace(spec, folder=copy))
    assert reason(await engine.answer(ask("Hi", "acme/flipped"))) == "unusable_adapter"


async def test_an_adapter_that_fits_nowhere_is_refused(bench: Workbench, engine: InferenceEngine) -> None:
    spec = bench.adapter("acme/deep", seed=5, layers_to_transform=[1], layers_pattern="layers")
    config = bench.root / "deep"
    shutil.copytree(spec.folder, config)
    tensors = config / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes().replace(b"layers.1.", b"layers.9."))
    settings = config / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"layers_to_transform": [9]}))
    with pytest.raises(UnusableAdapter, match="no such module"):
        await engine.load(msgspec.structs.replace(spec, folder=config, sha256=None))


async def test_a_newer_version_takes_over_and_the_old_one_can_still_be_named(
    bench: Workbench, engine: InferenceEngine
) -> None:
    old, new = bench.adapter("acme/ops", 1, seed=11), bench.adapter("acme/ops", 2, seed=12)
    await engine.load(old)
    question = ask("Who?", "acme/ops", max_tokens=40)
    started = asyncio.Event()
    in_flight = asyncio.create_task(engine.answer(question, lambda _: started.set()))
    await started.wait()
    await engine.load(new)
    later = await engine.answer(question)
    first = await in_flight
    assert (said(first), said(later)) == (bench.peft(old, question), bench.peft(new, question))
    assert isinstance(first, Answer) and isinstance(later, Answer)
    assert (first.adapter, later.adapter) == (AdapterKey("acme/ops", 1), AdapterKey("acme/ops", 2))
    assert said(await engine.answer(ask("Who?", "acme/ops", 1, max_tokens=40))) == said(first)


async def test_more_adapters_than_memory_come_and_go_and_stay_right(bench: Workbench, engine: InferenceEngine) -> None:
    specs = [bench.adapter(f"acme/many{i}", seed=20 + i, r=8) for i in range(6)]
    for spec in specs:
        await engine.load(spec)
    for _ in range(2):
        questions = [ask("Who?", spec.key.name) for spec in specs]
        outcomes = await answers(engine, questions)
        assert [said(each) for each in outcomes] == [bench.peft(*pair) for pair in zip(specs, questions, strict=True)]
    assert len(engine.resident()) <= 3
    assert engine.stats().evictions > 3 and all(each.in_use == 0 for each in engine.resident())


async def test_an_unloaded_adapter_is_refused_and_its_running_answer_ends(
    bench: Workbench, engine: InferenceEngine
) -> None:
    spec = bench.adapter("acme/gone", seed=31)
    await engine.load(spec)
    started = asyncio.Event()
    question = ask("Who?", "acme/gone", max_tokens=40)
    in_flight = asyncio.create_task(engine.answer(question, lambda _: started.set()))
    await started.wait()
    await engine.unload("acme/gone")
    assert reason(await engine.answer(ask("Who?", "acme/gone"))) == "unknown_adapter"
    assert said(await in_flight) == bench.peft(spec, question)
    with pytest.raises(UnknownAdapter):
        await engine.unload("acme/gone")


async def test_pieces_add_up_to_the_text(bench: Workbench, engine: InferenceEngine) -> None:
    await engine.load(bench.adapter("acme/loud", seed=41))
    pieces: list[str] = []
    outcome = await engine.answer(ask("Sing!", "acme/loud", max_tokens=60), lambda piece: pieces.append(piece.text))
    assert "".join(pieces) == said(outcome)
    assert len(pieces) > 1


async def test_the_same_seed_draws_the_same_answer_whoever_else_is_in_the_batch(engine: InferenceEngine) -> None:
    drawn = ask("Tell me.", temperature=1.0, seed=7, max_tokens=16)
    alone = said(await engine.answer(drawn))
    crowd = await answers(engine, [ask(f"Noise {i}", temperature=1.0, seed=i) for i in range(5)] + [drawn])
    assert said(crowd[-1]) == alone
    other = said(await engine.answer(ask("Tell me.", temperature=1.0, seed=8, max_tokens=16)))
    assert other != alone


async def test_a_cancelled_question_leaves_the_batch(engine: InferenceEngine) -> None:
    started = asyncio.Event()
    long = asyncio.create_task(engine.answer(ask("Go on", max_tokens=900), lambda _: started.set()))
    await started.wait()
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    assert said(await engine.answer(ask("And now?"))) is not None
    assert engine.stats().running + engine.stats().waiting == 0


async def test_what_cannot_be_read_or_rendered_is_refused(engine: InferenceEngine) -> None:
    outcomes = await answers(engine, [ask("word " * 3000), ask("Hi", tools="no json"), ask("Hi")])
    assert [reason(each) for each in outcomes[:2]] == ["prompt_too_long", "bad_question"]
    assert said(outcomes[2]) is not None


async def test_what_cannot_fit_is_neither_rendered_nor_cut_into_tokens(
    engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what may fit, but is long, is not rendered where everybody waits for it."""
    rendered: list[bool] = []
    render = Chat.prompt

    def seen(chat: Chat, messages: Sequence[Message], tools: str | None = None) -> list[int]:
        rendered.append(threading.current_thread() is threading.main_thread())
        return render(chat, messages, tools)

    monkeypatch.setattr(Chat, "prompt", seen)
    empty, call = Message(role="user", content=""), ToolUse(name="f", arguments="{}")
    calling = Message(role="assistant", content="", tool_calls=(call,) * 9_000)
    for changes in (
        {"messages": (empty,) * 9_000},
        {"messages": (empty, calling)},
        {"tools": f"[{'{},' * 8_999}{{}}]"},
    ):
        assert reason(await engine.answer(ask("Hi", **changes))) == "prompt_too_long"
    assert rendered == []
    said(await engine.answer(ask("Hi", messages=(empty,) * 65)))
    said(await engine.answer(ask("Hi")))
    assert rendered == [False, True]


async def test_a_full_engine_says_so(engine: InferenceEngine) -> None:
    outcomes = await answers(engine, [ask(f"{i}") for i in range(70)])
    reasons = [each.reason for each in outcomes if isinstance(each, Failure)]
    assert reasons == ["queue_full"] * 6


async def test_hostile_questions_fail_alone_and_by_name(bench: Workbench, engine: InferenceEngine) -> None:
    questions = [ask(name, **changes) for name, changes in HOSTILE.items()]
    good = [ask(f"Good {i}?") for i in range(3)]
    outcomes = await answers(engine, [good[0], *questions, *good[1:]])
    reasons = {
        name: outcome.reason if isinstance(outcome, Failure) else "answered"
        for name, outcome in zip(HOSTILE, outcomes[1:-2], strict=True)
    }
    assert {name for name, why in reasons.items() if why == "answered"} == FINE
    assert set(reasons.values()) == {"answered", "bad_question", "unknown_adapter", "prompt_too_long"}
    assert all(len(outcome.detail) <= 1_000 for outcome in outcomes if isinstance(outcome, Failure))
    assert [said(outcomes[i]) for i in (0, -2, -1)] == [bench.peft(None, each) for each in good]
    assert engine.alive() and engine.stats().running + engine.stats().waiting == 0


async def test_an_adapter_that_is_finite_only_in_its_numbers_is_refused(
    bench: Workbench, engine: InferenceEngine
) -> None:
    spec = bench.adapter("acme/huge", seed=7)
    assert spec.folder is not None
    tensors = spec.folder / "adapter_model.safetensors"
    save_file({name: tensor * 1e19 for name, tensor in load_file(tensors).items()}, tensors)
    unhashed = msgspec.structs.replace(spec, sha256=None)
    with pytest.raises(UnusableAdapter, match="not finite"):
        await engine.load(unhashed)
    engine.announce(unhashed)
    assert [reason(each) for each in await answers(engine, [ask("Hi", "acme/huge")] * 3)] == ["unusable_adapter"] * 3
    assert said(await engine.answer(ask("Hi"))) == bench.peft(None, ask("Hi"))


async def test_cold_adapters_wait_for_room_and_companies_take_turns(bench: Workbench) -> None:
    """Never more in memory, or on their way there, than there is room for; nor more of one company than its share."""
    specs = [bench.adapter(f"acme/cold{i}", seed=50 + 2 * i, r=2) for i in range(8)]
    specs += [bench.adapter(f"globex/cold{i}", seed=90 + 2 * i, r=2) for i in range(2)]
    serving = EngineSetup(device=CPU, limits=Limits(rows=8, waiting=64), capacity=3, company_adapters=2)
    running = embedded(str(bench.base), bench.root / "cache", serving)
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    most: list[int] = []
    read = running._read

    def watched(spec: AdapterSpec) -> LoraWeights:
        weights = read(spec)
        alive.add(weights)
        most.append(len(alive))
        return weights

    running._read = watched
    done: list[str] = []
    async with running as engine:
        for spec in specs:
            engine.announce(spec)
        questions = [ask("Who?", spec.key.name, company=spec.key.name.partition("/")[0]) for spec in specs]

        async def answered(question: Question) -> str:
            text = said(await engine.answer(question))
            done.append(str(question.adapter))
            return text

        texts = await asyncio.gather(*map(answered, questions * 2))
        assert len(engine.resident()) <= 3
    assert texts == [bench.peft(*pair) for pair in zip(specs, questions, strict=True)] * 2
    assert max(most) <= 3
    assert max(done.index(f"globex/cold{i}") for i in range(2)) < 12, "eight of the other company stood before them"


async def test_one_company_cannot_fill_the_engine(bench: Workbench) -> None:
    serving = EngineSetup(device=CPU, limits=Limits(rows=8, waiting=64), capacity=3, company_waiting=5)
    async with embedded(str(bench.base), bench.root / "cache", serving) as engine:
        questions = [ask(f"{i}", company="acme") for i in range(20)] + [ask("x", company="globex")] * 2 + [ask("y")]
        outcomes = await answers(engine, questions)
        full = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        assert [(each.reason, each.again) for each in full] == [("queue_full", True)] * 15
        assert all(isinstance(each, Answer) for each in outcomes[-3:])
        assert isinstance(await engine.answer(questions[0]), Answer)


async def test_who_leaves_while_waiting_for_room_leaves_nothing_behind(bench: Workbench) -> None:
    specs = [bench.adapter(f"acme/leave{i}", seed=110 + 2 * i, r=2) for i in range(4)]
    async with embedded(str(bench.base), bench.root / "cache", EngineSetup(device=CPU, capacity=1)) as engine:
        for spec in specs:
            engine.announce(spec)
        for pause in (0.0, 0.01, 0.05, 0.1, 0.2):
            tasks = [
                asyncio.create_task(engine.answer(ask("Go on", spec.key.name, max_tokens=500))) for spec in specs * 2
            ]
            await asyncio.sleep(pause)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(60):
            for spec in specs:
                assert isinstance(await engine.answer(ask("Who?", spec.key.name)), Answer)
        assert engine.stats().running + engine.stats().waiting == 0
        assert all(each.in_use == 0 for each in engine.resident())


async def test_an_engine_at_fault_answers_nobody_and_says_so(bench: Workbench) -> None:
    class BrokenEngine:
        """Fault: the device is gone."""

        def __init__(self) -> None:
            self._rows: list[object] = []

        def rows(self) -> list[object]:
            return self._rows

        def submit(self, row: object) -> None:
            self._rows.append(row)

        def cancel(self, _: int) -> None:
            return None

        def step(self) -> list[object]:
            raise EngineStopped("a fault of the test")

    running = embedded(str(bench.base), bench.root / "cache", EngineSetup(device=CPU))
    running._make_engine = BrokenEngine  # type: ignore[assignment]
    async with running as engine:
        outcomes = await answers(engine, [ask("Hi"), ask("You")])
        assert [reason(each) for each in outcomes] == ["engine_stopped"] * 2
        assert all(each.again for each in outcomes if isinstance(each, Failure))
        assert not engine.alive()
        assert reason(await engine.answer(ask("Still there?"))) == "engine_stopped"
        with pytest.raises(SystemExit) as ended, world():
            await asyncio.wait_for(until_it_stops(engine), 5)
    assert ended.value.code == 70
