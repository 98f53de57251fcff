"""A training run: what is learned, what its bytes depend on, and the process that it happens in."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import io
import os
import select
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import msgspec
import peft
import pytest
import torch

from gpu_workers.adapters.store import CONFIG, TENSORS, Facts, FolderStore
from gpu_workers.bases import load as base_model
from gpu_workers.bases.chat import Chat
from gpu_workers.errors import ChildDied, DatasetRefused
from gpu_workers.train import child as child_process
from gpu_workers.train.learn.loss import answer_loss
from gpu_workers.train.learn.methods import METHODS
from gpu_workers.train.learn.samples import batches, texts, to_sample
from gpu_workers.train.lines import Broken, Report, RunSpec, SpecTaken, Trained, to_bytes
from gpu_workers.train.parent import KeptChild, train_in_child
from gpu_workers.train.run import run
from processors.dataset.turns import parse_row
from processors.training.settings import METHOD_NAMES, TrainSettings
from rillfold.demo import data
from tests.support.training import rows_of, write_rows


def spec_for(tmp_path: Path, base: Path, settings: TrainSettings, threads: int = 1) -> RunSpec:
    manifest = write_rows(tmp_path / "rows", data.ACME, 12, 4)
    out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
    out.mkdir()
    return RunSpec(
        rows=tmp_path / "rows",
        rows_sha256=manifest.rows_sha256,
        out=out,
        cache=tmp_path / "cache",
        base_model=str(base),
        method="lora",
        settings=settings,
        threads=threads,
    )


def reseeded(settings: TrainSettings) -> TrainSettings:
    return msgspec.structs.replace(settings, seed=settings.seed + 1)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def silent(_report: Report) -> None: ...


async def unheard(_report: Report) -> None: ...


def test_every_method_that_is_admitted_can_be_trained():
    assert set(METHODS) == set(METHOD_NAMES)


def test_the_result_is_an_adapter_for_peft_and_for_the_store(tmp_path, tiny_base, quick):
    spec = spec_for(tmp_path, tiny_base, quick)
    outcome = run(spec, silent)
    facts = Facts(company="acme", base_model=outcome.base.name, base_sha256=outcome.base.sha256, tools_in_prompt=False)
    store = FolderStore(tmp_path / "store")
    folder = store.place(store.put(spec.out, facts))
    model, tokenizer, _ = base_model.load(str(tiny_base), tmp_path)
    chat = Chat.of(tokenizer)
    rows = [parse_row(line) for line in spec.rows.read_bytes().splitlines()]
    prompt = torch.tensor([chat.prompt(rows[0].prompt)])
    bare = model(prompt).logits
    adapted = peft.PeftModel.from_pretrained(model, folder)
    assert not torch.equal(adapted(prompt).logits, bare)
    assert adapted.peft_config["default"].r == quick.rank


def test_seed_settings_and_data_decide_the_bytes_and_nothing_else(tmp_path, tiny_base, quick):
    made = {}
    for name, settings in (
        ("one", quick),
        ("same", quick),
        ("seed", msgspec.structs.replace(quick, seed=1)),
        ("rate", msgspec.structs.replace(quick, learning_rate=1e-3)),
    ):
        spec = spec_for(tmp_path, tiny_base, settings)
        torch.manual_seed(int.from_bytes(os.urandom(4), "big"))  # what the process did before is no matter
        run(spec, silent)
        made[name] = sha256(spec.out / TENSORS)
    assert made["one"] == made["same"]
    assert len(set(made.values())) == 3


async def test_two_processes_give_the_same_bytes_whatever_they_did_before(tmp_path, tiny_base, quick):
    one, other, same = (spec_for(tmp_path, tiny_base, seeded) for seeded in (quick, reseeded(quick), quick))

    async def in_one_child() -> tuple[Trained | Broken, ...]:
        async with KeptChild() as child:
            return await child(other, unheard), await child(same, unheard)

    alone, (before, after) = await asyncio.gather(train_in_child(one, unheard), in_one_child())
    assert isinstance(alone, Trained) and isinstance(before, Trained), (alone, before)
    assert alone == after
    for name in (TENSORS, CONFIG):
        assert sha256(one.out / name) == sha256(same.out / name)
    assert sha256(one.out / TENSORS) != sha256(other.out / TENSORS)


async def test_a_child_that_was_killed_between_two_runs_is_followed_by_another(tmp_path, tiny_base, quick):
    others = children_of(os.getpid())
    async with KeptChild() as train:
        first = await train(spec_for(tmp_path, tiny_base, quick), unheard)
        (child,) = set(children_of(os.getpid())) - set(others)
        os.kill(child, signal.SIGKILL)
        assert await train(spec_for(tmp_path, tiny_base, quick), unheard) == first
    assert set(children_of(os.getpid())) <= set(others)


def test_a_child_repeats_its_last_report_while_it_computes(monkeypatch):
    monkeypatch.setattr(child_process, "BEAT_SECONDS", 0.001)
    monkeypatch.setattr(child_process, "BUSY_SECONDS", 0.0)
    said, again = [], threading.Event()

    class Heard(io.RawIOBase):
        def write(self, line):
            said.append(line)
            if said.count(line) > 2:
                again.set()

    voice = child_process.Voice(Heard())
    voice.send(Report(phase="train", step=3, steps=9))
    assert again.wait(60)
    voice.send(SpecTaken())
    assert said[-1] == to_bytes(SpecTaken())


def test_rows_that_are_not_the_manifests_are_refused(tmp_path, tiny_base, quick):
    spec = spec_for(tmp_path, tiny_base, quick)
    whole = bytearray(spec.rows.read_bytes())
    whole[100] ^= 1
    spec.rows.write_bytes(whole)
    with pytest.raises(DatasetRefused, match="not the rows of the manifest"):
        run(spec, silent)


async def test_the_child_says_why_it_refuses(tmp_path, tiny_base, quick):
    spec = spec_for(tmp_path, tiny_base, msgspec.structs.replace(quick, max_tokens=5))
    outcome = await train_in_child(spec, unheard)
    assert isinstance(outcome, Broken)
    assert outcome.reason == "dataset_refused"
    assert "turn 1" in outcome.detail


async def test_a_child_that_breaks_leaves_its_last_words(tmp_path, tiny_base, quick):
    spec = msgspec.structs.replace(spec_for(tmp_path, tiny_base, quick), method="magic")
    with pytest.raises(ChildDied, match="KeyError: 'magic'"):
        await train_in_child(spec, unheard)


async def test_a_cancelled_run_leaves_no_process(tmp_path, tiny_base, quick):
    spec = spec_for(tmp_path, tiny_base, msgspec.structs.replace(quick, steps=100_000))
    training = asyncio.Event()

    async def on_report(report: Report) -> None:
        if report.phase == "train":
            training.set()

    others = children_of(os.getpid())  # the suite's own servers
    work = asyncio.create_task(train_in_child(spec, on_report))
    await training.wait()
    (child,) = set(children_of(os.getpid())) - set(others)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert child not in children_of(os.getpid())


PARENT = """
import asyncio, sys
from gpu_workers.train.lines import spec_of
from gpu_workers.train.parent import train_in_child
async def on_report(report):
    if report.phase == "train":
        print("training", flush=True)
asyncio.run(train_in_child(spec_of(sys.stdin.buffer.readline()), on_report))
"""


def test_the_child_does_not_outlive_a_worker_that_was_killed(tmp_path, tiny_base, quick):
    spec = spec_for(tmp_path, tiny_base, msgspec.structs.replace(quick, steps=100_000))
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=-1, stdout=-1) as parent:
        parent.stdin.write(to_bytes(spec))
        parent.stdin.flush()
        assert parent.stdout.readline() == b"training\n"
        (child,) = children_of(parent.pid)
        waiting = os.pidfd_open(child)
        parent.send_signal(signal.SIGKILL)
    ended, _, _ = select.select([waiting], [], [], 60)
    os.close(waiting)
    assert ended, "the child lives on"


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def test_only_answer_tokens_carry_loss(tiny_loaded, tiny_chat, quick):
    """The loss of our short-cut equals that of the whole model with every other label masked."""
    model = METHODS["lora"](copy.deepcopy(tiny_loaded[0]), msgspec.structs.replace(quick, dropout=0.0), quick.steps)
    talk = data.training(data.ACME, 1, finished=1.0)[0]
    read = texts(tiny_chat, rows_of([talk, talk[:2]]), 1024)
    assert [len(text.answers) for text in read] == [2, 1]
    (part,) = next(batches(read, msgspec.structs.replace(quick, batch=2), tiny_chat.end))
    labels = part.ids.masked_fill(~part.answers, -100)
    mask = torch.zeros_like(part.ids)
    for line, text in enumerate(sorted(read, key=lambda text: len(text.ids))):
        mask[line, : len(text.ids)] = 1
    theirs = model.model(input_ids=part.ids, attention_mask=mask, labels=labels).loss * part.answers.sum()
    assert torch.allclose(answer_loss(model, part), theirs, rtol=1e-4)


def test_a_conversation_is_read_once_and_each_of_its_answers_learned_as_if_it_stood_alone(
    tiny_loaded, tiny_chat, quick
):
    model = METHODS["lora"](copy.deepcopy(tiny_loaded[0]), msgspec.structs.replace(quick, dropout=0.0), quick.steps)
    rows = rows_of([data.training(data.ACME, 1, finished=1.0)[0]])
    (text,) = texts(tiny_chat, rows, 1024)
    alone = [to_sample(tiny_chat, row, 1024) for row in rows]
    assert [text.ids[span.start : span.stop] for span in text.answers] == [sample.answer for sample in alone]
    one = msgspec.structs.replace(quick, batch=1)
    apart = [read for row in rows for read in texts(tiny_chat, [row], 1024)]
    together, *separate = (next(batches([read], one, tiny_chat.end))[0] for read in (text, *apart))
    assert len(separate) == 2
    assert torch.allclose(answer_loss(model, together), sum(map(partial(answer_loss, model), separate)), rtol=1e-4)


def test_answers_of_two_records_are_never_one_text(tiny_chat):
    talk = data.training(data.ACME, 1, finished=1.0)[0]
    rows = rows_of([talk[:2], talk])
    assert [len(text.answers) for text in texts(tiny_chat, rows, 1024)] == [1, 2]


def test_an_epoch_has_every_sample_once_and_the_seed_decides_the_order(tiny_chat):
    talks = data.training(data.ACME, 20, finished=0.0)
    read = texts(tiny_chat, rows_of(talks), 1024)
    settings = TrainSettings(steps=5, batch=4, micro_batch=2)

    def drawn(settings: TrainSettings) -> list[tuple[int, ...]]:
        seen = []
        for batch in batches(read, settings, tiny_chat.end):
            for part in batch:
                seen += [tuple(ids[mask].tolist()) for ids, mask in zip(part.ids, part.answers, strict=True)]
        return seen

    assert sorted(drawn(settings)) == sorted(tuple(tiny_chat.sample(talk).answer) for talk in talks)
    assert drawn(settings) == drawn(settings)
    assert drawn(settings) != drawn(msgspec.structs.replace(settings, seed=1))
