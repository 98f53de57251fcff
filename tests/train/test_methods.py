"""Every method, activated and not: what was trained is what is served, and a run that was broken off loses nothing."""

from __future__ import annotations

import copy
import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from gpu_workers.adapters.check import check_adapter
from gpu_workers.adapters.store import CONFIG, TENSORS
from gpu_workers.adapters.weights import read_adapter
from gpu_workers.bases import nf4
from gpu_workers.bases.chat import Chat
from gpu_workers.bases.files import BaseIdentity
from gpu_workers.errors import BadPrecision
from gpu_workers.serve.engine.decoder import Decoder
from gpu_workers.serve.engine.engine import Engine, LoraRow, Said
from gpu_workers.serve.schedule.rows import Limits
from gpu_workers.train.learn import recomputed
from gpu_workers.train.learn.activation import generation_prompt
from gpu_workers.train.learn.checkpoint import Checkpoints
from gpu_workers.train.learn.loop import Loop, steps_of
from gpu_workers.train.learn.methods import METHODS, Adapted
from gpu_workers.train.learn.objectives import objective_of
from gpu_workers.train.learn.samples import batches, texts
from gpu_workers.train.learn.saved import save
from gpu_workers.train.lines import Report, to_bytes
from gpu_workers.train.run import run
from processors.dataset.turns import Example
from processors.training.settings import TrainSettings
from rillfold.demo import data
from tests.support.training import rows_of, spec_for

pytestmark = pytest.mark.filterwarnings("ignore:.*invalid shape.*")
ACTIVATIONS = ("always", "generation-prompt")


@pytest.fixture
def fast() -> TrainSettings:
    """Wide steps: after a few of them the adapter speaks otherwise than its base."""
    return TrainSettings(
        rank=4, alpha=8, steps=5, batch=4, micro_batch=2, warmup=1, learning_rate=0.05, evaluation_rows=0
    )


def rows() -> list[Example]:
    held_out = [data.conversation(data.ACME, request) for request in data.held_out(data.ACME, 4)]
    return rows_of(data.training(data.ACME, 12, finished=1.0) + held_out)


def begun(model: Any, chat: Chat, method: str, settings: TrainSettings) -> tuple[Adapted, Loop]:
    objective = objective_of(rows(), chat, settings)
    trigger = generation_prompt(chat) if settings.activation != "always" else ()
    steps = steps_of(settings, objective.texts)
    adapted = METHODS[method](model, settings, steps, trigger)
    return adapted, Loop(adapted, objective, settings, steps)


def trained(model: Any, chat: Chat, method: str, settings: TrainSettings) -> tuple[Adapted, Loop]:
    adapted, loop = begun(model, chat, method, settings)
    for _ in loop.run():
        pass
    return adapted, loop


def said_by_the_model(adapted: Adapted, prompt: list[int], new: int) -> list[int]:
    """Each token from the whole text anew: where the adapter acts is told by place, not by who spoke."""
    ids, answers = list(prompt), torch.zeros(1, len(prompt) + 1, dtype=torch.bool)
    with torch.inference_mode():
        for _ in range(new):
            if adapted.activation is not None:
                answers = torch.zeros(1, len(ids) + 1, dtype=torch.bool)
                answers[0, len(prompt)] = True
                adapted.activation.in_texts(answers)
                adapted.activation._mask = adapted.activation._mask[:, : len(ids)]
            ids.append(int(adapted.model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def said_by_the_engine(base: Any, folder: Path | None, prompts: Sequence[list[int]], new: int) -> list[list[int]]:
    weights = read_adapter(folder) if folder else None
    engine = Engine(Decoder(base), frozenset(), Limits())
    for number, prompt in enumerate(prompts):
        row = LoraRow(number, prompt, weights, new)
        if weights and weights.activation:
            row.active_from = len(prompt) - len(weights.activation)
        engine.submit(row)
    said: dict[int, list[int]] = {}
    while engine.busy():
        for each in engine.step():
            assert isinstance(each, Said), each
            said.setdefault(each.ticket, []).extend(each.tokens)
    return [said[number] for number in range(len(prompts))]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("method", METHODS)
def test_what_was_trained_is_what_is_served(tiny_loaded, tiny_chat, tmp_path, fast, method, activation):
    model, _, identity = tiny_loaded
    base = copy.deepcopy(model)
    if METHODS[method].in_four_bits:
        nf4.quantise(base)
        identity = identity.quantised()
    louder = 100 if method == "adalora" else fast.alpha  # it begins with singular values of nothing
    settings = msgspec.structs.replace(fast, activation=activation, steps=8, alpha=louder)
    adapted, loop = trained(copy.deepcopy(base), tiny_chat, method, settings)
    assert loop.losses[-1] < loop.losses[0]
    save(adapted, identity, tmp_path)
    config = check_adapter(tmp_path)
    if method == "adalora":
        ranks = {config.rank_of(name) for name in Decoder(base).shapes()}
        assert len(ranks) > 1, "ranks are as they were"
    assert config.activation == (generation_prompt(tiny_chat) if activation != "always" else None)
    prompts = [tiny_chat.prompt(talk[:1]) for talk in data.training(data.ACME, 3)]
    served = said_by_the_engine(base, tmp_path, prompts, 8)
    assert served == [said_by_the_model(adapted, prompt, 8) for prompt in prompts]
    assert served != said_by_the_engine(base, None, prompts, 8)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("method", ["lora", "qlora", "adalora"])
def test_what_is_computed_again_is_not_kept_and_changes_no_bit(
    tiny_loaded, tiny_chat, fast, monkeypatch, method, dropout
):
    settings = msgspec.structs.replace(fast, steps=3, dropout=dropout, micro_batch=4)
    base = copy.deepcopy(tiny_loaded[0])
    if METHODS[method].in_four_bits:
        nf4.quantise(base)
    left_out, pack = Counter[bool](), recomputed._pack

    def counted(recipes: Any, saved: torch.Tensor) -> Any:
        packed = pack(recipes, saved)
        left_out[not isinstance(packed, torch.Tensor)] += 1
        return packed

    monkeypatch.setattr(recomputed, "_pack", counted)
    adapted, _ = trained(copy.deepcopy(base), tiny_chat, method, settings)
    blocks = len(base.model.layers) * settings.steps
    assert left_out[True] >= (1 if dropout else 2) * blocks
    monkeypatch.setattr("gpu_workers.train.learn.loop.frugal", lambda _: nullcontext())
    plain, _ = trained(base, tiny_chat, method, settings)
    learned = dict(adapted.model.named_parameters())
    assert all(torch.equal(learned[name], each) for name, each in plain.model.named_parameters())


def test_an_activated_adapter_leaves_a_prompt_as_the_base_has_it(tiny_loaded, tiny_chat, fast):
    settings = msgspec.structs.replace(fast, activation="generation-prompt")
    adapted, _ = trained(copy.deepcopy(tiny_loaded[0]), tiny_chat, "rslora", settings)
    prompt = tiny_chat.prompt(data.training(data.ACME, 1)[0][:1])
    trigger = len(generation_prompt(tiny_chat))
    with torch.inference_mode():
        base = tiny_loaded[0](torch.tensor([prompt])).logits[0]
        acted = adapted.model(torch.tensor([prompt])).logits[0]
    assert torch.equal(acted[:-trigger], base[:-trigger])
    assert not torch.allclose(acted[-trigger:], base[-trigger:])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("method", METHODS)
def test_the_base_is_measured_as_it_was_before_the_training(tiny_loaded, tiny_chat, fast, method, activation):
    base = copy.deepcopy(tiny_loaded[0])
    if METHODS[method].in_four_bits:
        nf4.quantise(base)
    prompt = torch.tensor([tiny_chat.prompt(data.training(data.ACME, 1)[0][:1])])
    settings = msgspec.structs.replace(fast, activation=activation, steps=3, gradient_checkpointing=True)
    with torch.no_grad():
        before = base(prompt).logits
    adapted, loop = trained(base, tiny_chat, method, settings)
    assert len(loop.losses) == 3
    with torch.no_grad():
        assert torch.equal(adapted.model.unload()(prompt).logits, before)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Broke(Exception):
    """The run ends here."""


def broken_after(step: int, again: list[int]):
    def told(report: Report) -> None:
        if report.phase == "train":
            again.append(report.step)
            if report.step == step:
                raise Broke

    return told


def saved(adapted: Adapted, identity: BaseIdentity, out: Path) -> list[str]:
    out.mkdir()
    save(adapted, identity, out)
    return [sha256(out / name) for name in (TENSORS, CONFIG)]


def test_adaloras_penalty_is_the_number_that_peft_adds_to_its_own_loss(tiny_loaded, tiny_chat, fast, monkeypatch):
    adapted, loop = begun(copy.deepcopy(tiny_loaded[0]), tiny_chat, "adalora", fast)
    ids = torch.tensor([tiny_chat.prompt(data.training(data.ACME, 1)[0][:1])])
    adapted.model.eval()
    with torch.no_grad():
        with_penalty = adapted.model(input_ids=ids, labels=ids).loss
        without = adapted.model.base_model.model(input_ids=ids, labels=ids).loss
        own = adapted.ranks.penalty()
    assert float(own) == pytest.approx(float(with_penalty - without), rel=1e-4) and own > 0.1
    losses = [step.loss for step in loop.run()]
    monkeypatch.setattr("gpu_workers.train.learn.ranks.ORTHOGONALITY", 0.0)
    _, other = trained(copy.deepcopy(tiny_loaded[0]), tiny_chat, "adalora", fast)
    assert other.losses[0] == losses[0] and other.losses != losses, "it is no part of what is learned by"


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_run_that_was_broken_off_ends_with_the_bytes_of_one_that_was_not(
    tiny_loaded, tiny_chat, tmp_path, fast, method
):
    settings = msgspec.structs.replace(fast, measure_every=2, patience=3, evaluation_rows=4)
    model, _, identity = tiny_loaded
    base = copy.deepcopy(model)
    if METHODS[method].in_four_bits:
        nf4.quantise(base)
    adapted, whole = trained(copy.deepcopy(base), tiny_chat, method, settings)
    bytes_ = saved(adapted, identity, tmp_path / "whole")
    for step in range(1, settings.steps):  # as it has measured, and between two measurings
        kept = Checkpoints(tmp_path / f"{step}", method, 0.0)
        _, broken = begun(copy.deepcopy(base), tiny_chat, method, settings)
        for done in broken.run():
            kept.keep(broken.state)
            if done.number == step:
                break
        torch.manual_seed(step)  # another process, which did other things before
        adapted, resumed = begun(copy.deepcopy(base), tiny_chat, method, settings)
        resumed.restore(kept.read())
        assert [done.number for done in resumed.run()] == list(range(step + 1, settings.steps + 1))
        assert (resumed.losses, resumed.held_out_losses) == (whole.losses, whole.held_out_losses)
        assert saved(adapted, identity, tmp_path / f"after-{step}") == bytes_, step


def test_a_run_goes_on_where_it_was_broken_off(tmp_path, tiny_base, fast):
    """As the worker runs it, and not when anything is another's."""
    whole = spec_for(tmp_path, tiny_base, "lora", fast, "whole")
    outcome = run(msgspec.structs.replace(whole, checkpoints=None), lambda _: None)
    spec, steps = spec_for(tmp_path, tiny_base, "lora", fast, "broken"), []
    with pytest.raises(Broke):
        run(spec, broken_after(3, steps))
    other = msgspec.structs.replace(spec, settings=msgspec.structs.replace(fast, seed=1), checkpoint_seconds=60.0)
    run(other, broken_after(0, others := []))
    assert others == [1, 2, 3, 4, 5], "went on from another run's checkpoint"
    assert run(spec, broken_after(0, steps)) == outcome
    assert steps in ([1, 2, 3, 4, 5], [1, 2, 3, 3, 4, 5]), "what was computed is computed again"
    assert sha256(spec.out / TENSORS) == sha256(whole.out / TENSORS)


KILLED = """
import os, random, select, signal, sys
from gpu_workers.bases.before_torch import settle
settle()
import torch
torch.set_num_threads(1)
from gpu_workers.bases import load
from gpu_workers.train.lines import spec_of
from gpu_workers.train.run import run
spec, dice, kills, seen = spec_of(sys.stdin.buffer.readline()), random.Random(7), 0, 0
load.load(spec.base_model, spec.cache)  # imports what every run imports
while True:
    heard, told = os.pipe()
    if not (child := os.fork()):
        run(spec, lambda report: report.phase == "train" and os.write(told, b"."))
        os._exit(0)
    os.close(told)
    if kills < 3 and os.read(heard, 1):  # it steps: killed soon after, wherever that finds it
        seen += 1
        select.select([], [], [], dice.random() * 0.03)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(heard)
    if not status:
        break
    kills += 1
print(kills, seen)
"""


def test_a_run_that_is_killed_three_times_ends_with_the_same_bytes(tmp_path, tiny_base, fast):
    """One process imports torch once, and forks: a run is a child that may be killed at any instruction."""
    settings = msgspec.structs.replace(fast, steps=20, batch=1)
    whole = spec_for(tmp_path, tiny_base, "adalora", settings, "whole")
    run(msgspec.structs.replace(whole, checkpoints=None), lambda _: None)
    spec = spec_for(tmp_path, tiny_base, "adalora", settings, "killed")
    done = subprocess.run([sys.executable, "-c", KILLED], input=to_bytes(spec), capture_output=True, check=True)
    kills, seen = map(int, done.stdout.split())
    assert kills == seen == 3, done.stderr.decode()
    assert sha256(spec.out / TENSORS) == sha256(whole.out / TENSORS)


def test_what_is_torn_or_another_runs_is_no_checkpoint(tmp_path, caplog):
    kept = Checkpoints(tmp_path, "a run", 0.0)
    kept.keep(lambda: {"losses": [1.0], "weights": {"a": torch.ones(3)}})
    assert kept.read()["losses"] == [1.0]
    assert Checkpoints(tmp_path, "another run", 0.0).read() is None
    assert "another run's" in caplog.text
    file = tmp_path / "checkpoint"
    whole = file.read_bytes()
    flipped = bytes([*whole[:200], whole[200] ^ 1, *whole[201:]])
    for torn in (whole[:-1], whole[: len(whole) // 2], b"", b"\xff" * 90, flipped):
        file.write_bytes(torn)
        assert kept.read() is None
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint"]


def as_before(model: Any, drawn: Iterator[Any], settings: TrainSettings) -> list[float]:
    """The loop by which adapters were made when there was one method. Theirs can be made again."""

    def rate(done: int) -> float:
        if done < settings.warmup:
            return (done + 1) / settings.warmup
        return max(0.0, (settings.steps - done) / max(1, settings.steps - settings.warmup))

    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate, weight_decay=0.0)
    schedule, losses, causal = LambdaLR(optimizer, rate), [], model.get_base_model()
    model.train()
    for batch in drawn:
        tokens, total = sum(int(part.answers.sum()) for part in batch), 0.0
        for ids, answers in batch:
            hidden = causal.model(input_ids=ids, use_cache=False).last_hidden_state
            logits = causal.lm_head(hidden[:, :-1][answers[:, 1:]])
            loss = cross_entropy(logits.float(), ids[:, 1:][answers[:, 1:]], reduction="sum") / tokens
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
        schedule.step()
    return losses


def test_an_older_adapter_can_be_made_again(tiny_loaded, tiny_chat, fast):
    import peft

    base, fast = tiny_loaded[0], msgspec.structs.replace(fast, rule=2)
    adapted, loop = trained(copy.deepcopy(base), tiny_chat, "lora", fast)
    torch.manual_seed(fast.seed)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=fast.rank, lora_alpha=fast.alpha, lora_dropout=fast.dropout,
        target_modules=list(fast.modules), bias="none",
    )  # fmt: skip
    older = peft.get_peft_model(copy.deepcopy(base), config)
    learned = texts(tiny_chat, [row for row in rows() if not row.held_out], fast.max_tokens)
    assert as_before(older, batches(learned, fast, tiny_chat.end), fast) == loop.losses
    ours, theirs = (peft.get_peft_model_state_dict(model) for model in (adapted.model, older))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_recomputing_what_memory_does_not_hold_gives_the_same_bytes(tiny_loaded, tiny_chat, fast):
    losses = []
    for spared in (False, True):
        settings = msgspec.structs.replace(fast, gradient_checkpointing=spared)
        _, loop = trained(copy.deepcopy(tiny_loaded[0]), tiny_chat, "lora", settings)
        losses.append(loop.losses)
    assert losses[0] == losses[1]


def test_precision_is_what_was_asked_for_or_refused_by_name(tmp_path, tiny_base, fast):
    half = msgspec.structs.replace(fast, precision="bfloat16", steps=2)
    outcome = run(spec_for(tmp_path, tiny_base, "lora", half, "half"), lambda _: None)
    assert outcome.base.dtype == "bfloat16"
    for of_a_card, instead in (("float16", "bfloat16"), ("tf32", "float32")):
        with pytest.raises(BadPrecision, match=f"precision={instead}"):
            run(
                spec_for(tmp_path, tiny_base, "lora", msgspec.structs.replace(fast, precision=of_a_card), of_a_card),
                lambda _: None,
            )


def test_a_run_ends_when_it_gets_no_better_and_keeps_its_best(tiny_loaded, tiny_chat, fast):
    rough = msgspec.structs.replace(
        fast, learning_rate=1.0, warmup=0, steps=40, measure_every=1, patience=1, evaluation_rows=8
    )
    adapted, loop = trained(copy.deepcopy(tiny_loaded[0]), tiny_chat, "lora", rough)
    assert len(loop.losses) < 40
    assert loop.held_out_losses.index(min(loop.held_out_losses)) == len(loop.losses) - 2
    objective = objective_of(rows(), tiny_chat, rough)
    with torch.no_grad():
        left = sum(float(objective.loss(adapted, part)) for part in objective.held_out())
    assert left / objective.weight(objective.held_out()) == pytest.approx(min(loop.held_out_losses), rel=1e-6)


def test_epochs_say_how_long():
    assert steps_of(TrainSettings(epochs=3, batch=8), 20) == 8
    assert steps_of(TrainSettings(steps=7), 20) == 7
