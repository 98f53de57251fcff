"""The loop that makes its own data, whole, on a base that is made in a second."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import examples.auto_lora as example
from gpu_workers.adapters.store import FolderStore
from gpu_workers.errors import BaseModelMissing
from gpu_workers.evaluate.written import WrongAnswer
from gpu_workers.train.lines import Broken, RunSpec
from gpu_workers.train.place import Workplace
from gpu_workers.train.worker import Trainer
from processors.dataset.lessons import row_of
from processors.dataset.selection import Selection
from processors.synthetic.definition import UnusableTool
from processors.synthetic.mix import Mix
from projections.lora_adapters import LORA_ADAPTERS
from projections.training_runs import TRAINING_RUNS
from rillfold.auto_lora import (
    AutoLoRACreator,
    GgufFiles,
    LlamaCppClient,
    LoRATrainer,
    SyntheticDataGenerator,
    ToolCallEvaluator,
    ToolCallingDataset,
    TrainingConfig,
)
from rillfold.auto_lora.config import AGENT, MADE, BadConfig, made_by
from rillfold.auto_lora.evaluator import NothingHeldOut
from rillfold.auto_lora.history import History
from rillfold.auto_lora.iteration import NotLearned
from rillfold.auto_lora.made import NotADataset, loop_of
from rillfold.auto_lora.room import OutputInUse, alone, room
from rillfold.auto_lora.writers import BaseWriter
from rillfold.cli import rillfold
from rillfold.event_log import first, now
from rillfold.produce.outputs import agent_outputs
from schemas.company import ConversationIngested, Message
from schemas.envelope import caused_by
from schemas.errors import Stop
from schemas.topics import TOPICS, TopicNames
from schemas.training import TrainingProgressed, TrainingRequested
from streams.fold.view import View
from streams.history import followed as followed_module
from streams.history import replay
from streams.log.kafka.admin import wanted
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, TopicSpec
from tests.support.described import company_tools
from tests.support.made import made_once
from tests.support.worker import external

PEFT = {"adapter_model.safetensors", "adapter_config.json"}
FILES = {*PEFT, "adapter.gguf", "metrics.json", "error_analysis.json", "mix.json"}


@pytest.fixture
def config(tiny_base) -> TrainingConfig:
    """Enough to change every matrix, not to learn."""
    return TrainingConfig(
        model_name=str(tiny_base),
        lora_r=4,
        lora_alpha=8,
        num_synthetic_examples=24,
        held_out=8,
        threads=1,
        company="acme",
    )


def creator(config: TrainingConfig, out: Path, **more) -> AutoLoRACreator:
    made = AutoLoRACreator(config, out, **{"train": made_once, **more})
    for tool in company_tools():
        made.add_tool(tool)
    return made


WORKS = "import sys, time; from pathlib import Path; from rillfold.auto_lora.room import room\n"
WORKS += "with room(Path(sys.argv[1]), '.work') as place: print(place, flush=True); time.sleep(600)"


def test_what_a_killed_run_has_left_the_next_one_removes_and_nothing_of_one_that_lives(tmp_path):
    places = []
    line = [sys.executable, "-c", WORKS, str(tmp_path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as killed:
        places.append(Path(killed.stdout.readline().strip()))
        killed.terminate()
    with room(tmp_path, ".draft") as other:
        assert places[0].is_dir(), "another kind is not looked at"
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as lives:
            places.append(Path(lives.stdout.readline().strip()))
            with room(tmp_path, ".work") as ours:
                assert set(tmp_path.iterdir()) == {places[1], ours, other}
            lives.kill()
    with room(tmp_path, ".work"):
        pass
    assert not list(tmp_path.iterdir())


def test_where_no_file_can_be_locked_nothing_is_removed(tmp_path, monkeypatch):
    """A network's file system, or one that another host has locked for itself alone."""

    def unlockable(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    with monkeypatch.context() as here:
        here.setattr(fcntl, "flock", unlockable)
        with room(tmp_path, ".work") as one, room(tmp_path, ".work") as two:
            assert set(tmp_path.iterdir()) == {one, two}
    assert not list(tmp_path.iterdir())
    with monkeypatch.context() as there:
        there.setattr("rillfold.auto_lora.room.gethostname", lambda: "there")
        line = [sys.executable, "-c", WORKS, str(tmp_path)]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as killed:
            left = Path(killed.stdout.readline().strip())
            killed.kill()
        with room(tmp_path, ".work"):
            assert left.is_dir()
    (left / "half").mkdir()
    with room(tmp_path, ".work") as ours:
        assert set(tmp_path.iterdir()) == {ours}


def mix_in(folder: Path) -> Mix:
    return msgspec.convert(json.loads((folder / "mix.json").read_text())["mix"], Mix)


async def test_mistakes_steer_the_next_iteration_and_the_best_is_kept(tmp_path, config):
    lines = []
    out = tmp_path / "out"
    folder, metrics = await creator(config, out, say=lines.append).create_adapter(2)
    assert {path.name for path in out.iterdir()} == {"iteration_1", "iteration_2", "final_adapter"}
    assert all({path.name for path in each.iterdir()} == FILES for each in out.iterdir())
    first, then = mix_in(out / "iteration_1"), mix_in(out / "iteration_2")
    wrong = msgspec.json.decode((out / "iteration_1" / "error_analysis.json").read_bytes(), type=list[WrongAnswer])
    assert wrong and then != first and then.temperature != first.temperature
    assert f"iteration 2: {then}" in lines
    best = out / f"iteration_{metrics['iteration']}" / "adapter_model.safetensors"
    assert folder == out / "final_adapter" and (folder / best.name).read_bytes() == best.read_bytes()
    assert 0 <= metrics["after"] <= 1 and metrics["held_out"] == 8 and len(metrics["iterations"]) == 2
    assert "not better than the best before it" in metrics["stopped"] or "2 iterations" in metrics["stopped"]
    with pytest.raises(OutputInUse, match="another run"):
        await creator(config, out).create_adapter(1)
    asked = ["adapters", "export", str(folder), "--base", config.model_name, "--out", str(tmp_path / "again")]
    again = await asyncio.to_thread(CliRunner(catch_exceptions=False).invoke, rillfold, asked)
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again" / "adapter.gguf").read_bytes() == (folder / "adapter.gguf").read_bytes()


async def test_with_kafka_a_stack_trains_and_the_log_knows_it_all(stack, names, kafka, tmp_path, config, monkeypatch):
    name, other = Path(config.model_name).name, tmp_path / "other"
    other.symlink_to(config.model_name)
    unlisted = TrainingConfig(model_name=str(other))
    bases, data = {name: config.model_name}, tmp_path / "data"
    told = {"BASE_MODELS": json.dumps(bases), "BASE_MODEL": name}
    for setting, value in external(stack.bootstrap_servers, names.prefix, data, **told).items():
        monkeypatch.setenv(setting, value)
    await kafka.create(wanted(names, TOPICS))
    place = Workplace("one", data / "training", tmp_path / "cache", 1, now, bases)
    worker = Trainer(kafka, names, FolderStore(data / "adapters"), place, made_once)
    working = asyncio.create_task(worker.run(lambda: None))
    with pytest.raises(BadConfig, match="is not in RILLFOLD_BASE_MODELS"):
        await creator(unlisted, tmp_path / "no", kafka=True).create_adapter(1)
    folder, metrics = await creator(config, tmp_path / "out", kafka=True).create_adapter(1)
    asked = ["retrain", "acme/tools", "--json"]
    again = await asyncio.to_thread(CliRunner(catch_exceptions=False).invoke, rillfold, asked)
    working.cancel()
    assert json.loads(again.stdout)["identical"] is True
    (adapter,) = (await View(kafka, names, LORA_ADAPTERS).catch_up()).values()
    runs = (await View(kafka, names, TRAINING_RUNS).catch_up()).values()
    assert [run.status for run in runs] == ["completed", "completed"] and adapter.run in {run.run for run in runs}
    assert adapter.evaluation and adapter.evaluation.after == metrics["after"] and adapter.verdict
    assert {path.name for path in folder.iterdir()} == FILES
    ranges = await replay.everything_up_to_now(kafka, names)
    made = await replay.build(kafka, names, "acme", ranges, tmp_path / "all")
    assert made.synthetic == made.trained + made.held_out
    observed = Selection(origins=("observed",))
    assert not (await replay.build(kafka, names, "acme", ranges, tmp_path / "all", select=observed)).trained


async def test_a_run_that_nobody_takes_is_said_once_and_taken_back_by_who_waits_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(followed_module, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(followed_module, "LOOK_SECONDS", 0.01)
    log, names, said, looks = MemoryLog(), TopicNames(), asyncio.Queue[str](), asyncio.Event()
    await log.create([TopicSpec("training-request", 1)])
    history = History(log, names, "acme", FolderStore(tmp_path), say=said.put_nowait)
    request = TrainingRequested(**first("acme"), base_model="tiny")

    async def seen(_report):
        looks.set()

    waiting = asyncio.create_task(history.trained(request, seen))
    assert await said.get() == f"No training worker has taken run {request.id} yet. Is `rillfold worker train` running?"
    progressed = TrainingProgressed(**caused_by(request, "p", 1), run=request.id, phase="train", step=1, steps=2)
    await log.append([to_outgoing(progressed, names)])
    await looks.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    (run,) = (await View(log, names, TRAINING_RUNS).catch_up()).values()
    assert run.withdrawn == "nobody waits for it" and said.empty()


async def test_a_trainer_learns_what_was_made_and_what_an_agent_said(tmp_path, config):
    generator = SyntheticDataGenerator(company_tools(), config)
    made = [*generator.generate_held_out(6), *generator.generate(18)]
    trainer = LoRATrainer(config, tmp_path / "made", train=made_once)
    folder, metrics = await trainer.train(made)
    assert {path.name for path in folder.iterdir()} == FILES - {"mix.json"} and metrics["adapter"] == "acme/tools@1"
    assert metrics["held_out"] and 0 <= metrics["after"] <= 1
    with pytest.raises(OutputInUse, match="there already"):
        await trainer.train(made)
    entry = json.dumps([{"prompt": f"Where is parcel {n}?", "output": "On its way."} for n in range(4)])
    (tmp_path / "sales_outputs.json").write_text(entry)
    said = agent_outputs(tmp_path / "sales_outputs.json", "acme")
    rows = []

    async def looked_at(spec, _):
        rows.extend(row_of(line) for line in spec.rows.read_bytes().splitlines())
        return Broken(reason="looked_at", detail="No further.")

    with pytest.raises(NotLearned, match=r"said was not trained \(looked_at\): No further\. What was .* kept"):
        await LoRATrainer(config, tmp_path / "said", train=looked_at).train(said)
    assert {(row.agent, row.answer.content) for row in rows} == {("sales", "On its way.")}
    for wrong, line in (([], "No conversation"), (agent_outputs(tmp_path / "sales_outputs.json", "globex"), "globex")):
        with pytest.raises(Stop, match=line):
            await LoRATrainer(config, tmp_path / "no", train=made_once).train(wrong)
    assert {path.name for path in tmp_path.iterdir()} == {"made", "sales_outputs.json"}


async def test_llama_cpp_answers_by_what_the_loop_has_left(tmp_path, config):
    folder, _ = await creator(config, tmp_path / "out").create_adapter(1)
    base = GgufFiles(config).base(tmp_path)
    assert base.name == "tiny-qwen3-F32.gguf"
    with LlamaCppClient(base, {"acme": folder / "adapter.gguf"}, threads=1, context=512) as llama:
        answer = llama.chat([{"role": "user", "content": "Find customer Tom Weber."}], adapter="acme", max_tokens=4)
    assert answer["model"] == "acme" and answer["usage"]["completion_tokens"] > 0


async def test_a_form_that_breaks_costs_nothing_of_what_was_trained(tmp_path, config):
    def breaks(folder):
        raise ZeroDivisionError("whoever wrote this form")

    lines = []
    folder, _ = await creator(config, tmp_path, say=lines.append, export=breaks).create_adapter(1)
    assert "iteration_1 is kept without a GGUF file: ZeroDivisionError: whoever wrote this form" in lines
    assert (folder / "adapter_model.safetensors").is_file()


async def test_an_adapter_that_no_gguf_file_can_hold_is_named_and_kept(tmp_path, config):
    async def pruned(spec, on_report):
        """As training leaves it where a base has what llama.cpp knows no place for."""
        outcome = await made_once(spec, on_report)
        file = spec.out / "adapter_model.safetensors"
        save_file({name.replace("layers.0.", "layers.7."): it for name, it in load_file(file).items()}, file)
        return outcome

    lines = []
    folder, _ = await creator(config, tmp_path, say=lines.append, train=pruned).create_adapter(1)
    (told,) = [line for line in lines if "GGUF" in line]
    assert told.startswith("iteration_1 is kept without a GGUF file: adapter ") and "has no place in this base" in told
    assert {path.name for path in folder.iterdir()} == FILES - {"adapter.gguf"}


async def test_a_training_that_breaks_leaves_what_was_made_before(tmp_path, config):
    async def once(spec, on_report):
        if isinstance(spec, RunSpec) and (tmp_path / "iteration_1").exists():
            return Broken(reason="internal", detail="The disk is full.")
        return await made_once(spec, on_report)

    with pytest.raises(
        NotLearned, match=r"iteration_2 was not trained \(internal\): The disk is full\. What was .* kept"
    ):
        await creator(config, tmp_path, train=once).create_adapter(3)
    assert {path.name for path in tmp_path.iterdir()} == {"iteration_1", "final_adapter"}
    assert {path.name for path in (tmp_path / "final_adapter").iterdir()} == FILES


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_r": 900}, "TrainingConfig.lora_r"),
        ({"lora_dropout": 1.0}, "TrainingConfig.lora_dropout"),
        ({"num_epochs": 0}, "TrainingConfig.num_epochs"),
        ({"temperature": 7.0}, "TrainingConfig.temperature"),
    ],
    ids=["rank", "dropout", "epochs", "temperature"],
)
async def test_a_number_out_of_bounds_is_named_before_anything_is_made(tmp_path, config, changes, said):
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(BadConfig, match=said):
        await creator(config, tmp_path / "out").create_adapter()
    assert not (tmp_path / "out").exists()


async def test_a_base_that_is_not_there_is_named_before_anything_is_made(tmp_path, config):
    config.model_name = str(tmp_path / "nowhere")
    with pytest.raises(BaseModelMissing, match="nowhere"):
        await creator(config, tmp_path / "out").create_adapter()
    assert not (tmp_path / "out").exists()


async def test_a_folder_that_cannot_be_written_is_named(tmp_path, config):
    (tmp_path / "file").touch()
    with pytest.raises(Stop, match=r"file/out cannot be written: Not a directory. Name another folder"):
        await creator(config, tmp_path / "file" / "out").create_adapter()


async def test_a_second_loop_in_the_same_folder_is_refused_while_the_first_is_at_work(tmp_path, config):
    out = tmp_path / "out"
    with alone(out), pytest.raises(OutputInUse, match=r"Another run is at work in .*out: name another folder"):
        await creator(config, out).create_adapter(1)
    with alone(out):
        pass  # whoever ends lets go
    assert not list(out.iterdir())


async def test_no_tool_and_no_iteration_are_refused(tmp_path, config):
    with pytest.raises(UnusableTool, match="There is no tool"):
        await AutoLoRACreator(config, tmp_path / "out").create_adapter()
    with pytest.raises(Stop, match="0 iterations"):
        await creator(config, tmp_path / "out").create_adapter(0)


async def test_only_what_was_made_is_learned_and_it_can_be_left_out(log: EventLog, names: TopicNames, tmp_path, config):
    await log.create([TopicSpec(names.wire(topic), 2) for topic in ("company-data", "tool-result")])
    messages = (Message(role="user", content="Where is my parcel?"), Message(role="assistant", content="On its way."))
    seen = ConversationIngested(id="1", company="acme", time=1, correlation="1", agent=AGENT, messages=messages)
    made = SyntheticDataGenerator(company_tools(), config).generate(6)
    await log.append([to_outgoing(event, names) for event in (seen, *made.events("acme", 2))])
    begin = await replay.everything_up_to_now(log, names)
    history = History(log, names, "acme", FolderStore(tmp_path / "store"), begin=begin)
    later = SyntheticDataGenerator(company_tools(), TrainingConfig(seed=9)).generate(4)
    await history.tell(later.events("acme", 3))
    manifest = await history.rows(tmp_path / "rows", await history.ranges(), MADE)
    questions = {row_of(line).prompt[0].content for line in (tmp_path / "rows").read_bytes().splitlines()}
    assert questions == {each.question for each in later}
    assert manifest.synthetic == manifest.trained + manifest.held_out
    ranges = await replay.everything_up_to_now(log, names)
    for origins, rows in ((("observed",), 1), ((), None)):
        found = await replay.build(log, names, "acme", ranges, tmp_path / "all", select=Selection(origins=origins))
        assert found.trained + found.held_out - (found.synthetic or 0) == 1
        assert rows is None or found.synthetic is None


async def test_loops_beside_one_another_learn_nothing_of_each_other(log: EventLog, names: TopicNames, tmp_path, config):
    """Of one company, as all are by default, at one time, in one log."""
    await log.create([TopicSpec(names.wire(topic), 2) for topic in ("company-data", "tool-result")])
    loops = {}
    for tools, seed in ((company_tools()[:1], 1), (company_tools()[1:2], 2), (company_tools()[:1], 3)):
        made, loop = (
            SyntheticDataGenerator(tools, msgspec.structs.replace(config, seed=seed)).generate(20),
            loop_of(tools, 1, shared=True),
        )
        loops[loop] = made
        await log.append([to_outgoing(event, names) for event in made.events("acme", 2, loop)])
    history = History(log, names, "acme", FolderStore(tmp_path / "store"))
    for loop, made in loops.items():
        await history.rows(tmp_path / loop, await history.ranges(), made_by(loop))
        questions = {row_of(line).prompt[0].content for line in (tmp_path / loop).read_bytes().splitlines()}
        assert questions == {each.question for each in made}
    assert len(loops) == 3 and loop_of(company_tools(), 1) == loop_of(company_tools(), 1)


def test_a_dataset_is_a_file_and_comes_back(tmp_path):
    made = SyntheticDataGenerator(company_tools()).generate(8)
    made.save(tmp_path / "made.jsonl")
    assert list(ToolCallingDataset.load(tmp_path / "made.jsonl")) == list(made) and made[0].kind
    (tmp_path / "made.jsonl").write_text('{"no": 1}\n')
    with pytest.raises(NotADataset, match="Make it again"):
        ToolCallingDataset.load(tmp_path / "made.jsonl")


async def test_an_adapter_is_measured_on_what_was_held_out(tmp_path, config):
    folder, _ = await creator(config, tmp_path / "out").create_adapter(1)
    generator = SyntheticDataGenerator(company_tools(), config)
    held_out = generator.generate_held_out(6)
    found: Mapping = ToolCallEvaluator(config).evaluate(folder, held_out, tmp_path / "measured")
    assert 0 <= found["tool_call_accuracy"] <= 1 and (tmp_path / "measured" / "error_analysis.json").exists()
    with pytest.raises(NothingHeldOut):
        ToolCallEvaluator(config).evaluate(folder, generator.generate(4))


def test_the_base_itself_words_requests_and_nonsense_is_dropped(config):
    made = SyntheticDataGenerator(company_tools(), config, writer=BaseWriter(config)).generate(16)
    assert len(made) == 16 and any(reason.startswith("writer: ") for reason in made.dropped)
    assert "Templates go on." in made.notes[-1]


def test_the_tools_of_the_example_let_every_kind_be_made():
    generator = SyntheticDataGenerator(example.TOOLS)
    measured, learned = generator.generate_held_out(40), generator.generate(80)
    assert (len(measured), len(learned)) == (40, 80)
    assert len({each.kind for each in learned}) == 5
