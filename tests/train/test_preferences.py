"""Learning from corrections and thumbs: what was preferred becomes likelier, and rows that teach nothing are named."""

from __future__ import annotations

import copy
from math import log
from typing import Any

import msgspec
import pytest
import torch

from gpu_workers.errors import NoPairs, OneSided
from gpu_workers.train.learn.loop import Loop
from gpu_workers.train.learn.loss import answer_chances, answer_loss
from gpu_workers.train.learn.methods import METHODS, Adapted
from gpu_workers.train.learn.objectives import objective_of
from gpu_workers.train.learn.ranks import TALLIES
from processors.dataset.lessons import Lesson
from processors.dataset.turns import Example
from processors.training.admit import RunBounds, enough, too_often
from processors.training.settings import TrainSettings
from rillfold.demo import data
from schemas.company import Message
from tests.support.learning import built, log_of, said
from tests.support.training import rows_of

WRONG = Message(role="assistant", content="I do not know.")


class Row(Example, frozen=True, kw_only=True):
    """An answer, and what was said of it."""

    rejected: Message | None = None
    good: bool | None = None


def said_of(rows: list[Example], **said: Any) -> list[Row]:
    return [Row(**msgspec.structs.asdict(row), **said) for row in rows]


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    return rows_of(data.training(data.ACME, 12, finished=0.0))


def settings(objective: str, **more: Any) -> TrainSettings:
    plain = {"rank": 4, "alpha": 8, "dropout": 0.0, "steps": 12, "batch": 4, "micro_batch": 2, "warmup": 1}
    return TrainSettings(**{**plain, "learning_rate": 0.02, "objective": objective, **more})


def learned(model: Any, chat: Any, rows: list[Any], how: TrainSettings, method: str = "lora") -> tuple[Adapted, Any]:
    objective = objective_of(rows, chat, how)
    adapted = METHODS[method](copy.deepcopy(model), how, how.steps)
    loop = Loop(adapted, objective, how, how.steps)
    for _ in loop.run():
        pass
    return adapted, loop


def test_chances_are_the_losses_of_each_text(tiny_loaded, tiny_chat, rows):
    how = settings("dpo")
    adapted = METHODS["lora"](copy.deepcopy(tiny_loaded[0]), how, how.steps)
    part = objective_of(said_of(rows, rejected=WRONG), tiny_chat, how).batches(1).__next__()[0]
    chances = answer_chances(adapted, part)
    assert len(chances) == len(part.ids)
    assert torch.allclose(-chances.sum(), answer_loss(adapted, part), rtol=1e-5)


@pytest.mark.parametrize("method", ["lora", "adalora"])
def test_dpo_makes_what_was_corrected_less_likely_than_the_correction(tiny_loaded, tiny_chat, rows, method):
    louder = 400 if method == "adalora" else 8  # it begins with singular values of nothing
    how = settings("dpo", alpha=louder)
    _, loop = learned(tiny_loaded[0], tiny_chat, said_of(rows, rejected=WRONG), how, method)
    assert loop.losses[0] == pytest.approx(log(2), rel=1e-4), "an adapter of nothing is its own reference"
    assert loop.losses[-1] < 0.3


def test_kto_makes_the_good_likelier_and_the_bad_less(tiny_loaded, tiny_chat, rows):
    how = settings("kto")
    bad = [msgspec.structs.replace(row, answer=WRONG) for row in said_of(rows[: len(rows) // 3], good=False)]
    judged = said_of(rows, good=True) + bad
    adapted, loop = learned(tiny_loaded[0], tiny_chat, judged, how)
    assert loop.losses[-1] < loop.losses[0]
    fresh = objective_of(judged, tiny_chat, how)
    gains: dict[bool, list[float]] = {True: [], False: []}
    with torch.no_grad():
        for batch in fresh.batches(8):
            for part in batch:
                after = answer_chances(adapted, part.texts)
                with adapted.model.disable_adapter():
                    gained = after - answer_chances(adapted, part.texts)
                for good, gain in zip(part.good.tolist(), gained.tolist(), strict=True):
                    gains[good].append(gain)
    assert min(gains[True]) > 0 > max(gains[False])


def test_rows_that_hold_nothing_for_an_objective_are_named(tiny_chat, rows):
    with pytest.raises(NoPairs, match="objective=supervised"):
        objective_of(said_of(rows), tiny_chat, settings("dpo"))
    for older in ("dpo", "kto"):
        with pytest.raises((NoPairs, OneSided)):
            objective_of(rows, tiny_chat, settings(older, rule=2))
    for good in (True, False, None):
        with pytest.raises(OneSided, match="needs both"):
            objective_of(said_of(rows, good=good), tiny_chat, settings("kto"))


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_the_order_is_that_of_contents_and_seed_alone(tiny_chat, rows, objective):
    judged = said_of(rows, rejected=WRONG)

    def drawn(rows: list[Row], seed: int) -> list[Any]:
        parts = [
            part for batch in objective_of(rows, tiny_chat, settings(objective, seed=seed)).batches(6) for part in batch
        ]
        return [(part if objective == "dpo" else part.texts).ids.tolist() for part in parts]

    assert drawn(judged, 0) == drawn(list(reversed(judged)), 0) != drawn(judged, 1)


def lessons(*judged: bool | None, rejected: Message | None = None) -> list[Lesson]:
    """By rule 3, as a dataset holds them."""
    return [
        Lesson(
            agent="desk",
            story=f"{place:064x}",
            turn=1,
            held_out=False,
            prompt=(Message(role="user", content=f"Where is order {place}?"),),
            answer=Message(role="assistant", content="It is on its way." if good else "No idea."),
            rejected=rejected,
            good=good,
        )
        for place, good in enumerate(judged)
    ]


def answers_in(objective: Any, chat: Any) -> list[tuple[str, bool | None]]:
    """What one epoch learns, and whether it was good."""
    (batch,) = objective.batches(1)
    found = []
    for part in batch:
        texts = getattr(part, "texts", part)
        good = part.good.tolist() if hasattr(part, "good") else [None] * len(texts.ids)
        for ids, answers, each in zip(texts.ids, texts.answers, good, strict=True):
            found.append((chat.decode(ids[answers].tolist()[:-1]), each))
    return sorted(found, key=str)


def test_wrong_answers_of_a_dataset_are_what_kto_learns_from_and_supervised_does_not(tiny_chat):
    rows = lessons(True, False, None, False)
    kto = objective_of(rows, tiny_chat, settings("kto", batch=3))
    assert answers_in(kto, tiny_chat) == [("It is on its way.", True), ("No idea.", False), ("No idea.", False)]
    supervised = objective_of(rows, tiny_chat, settings("supervised", batch=2, micro_batch=1))
    assert (supervised.texts, answers_in(supervised, tiny_chat)) == (
        2,
        [("It is on its way.", None), ("No idea.", None)],
    )


async def test_a_dataset_of_wrong_answers_alone_is_one_for_kto(tmp_path):
    wrong = [
        said("agent_output.ingested", agent="desk", prompt=f"Question {n}", output="no", success=False)
        for n in range(9)
    ]
    manifest = (await built(await log_of(wrong), tmp_path)).manifest
    assert manifest.trained == 0 < manifest.bad
    assert enough(manifest, settings("supervised")).reason == "no_data"
    assert enough(manifest, settings("kto")) is None
    epochs = settings("kto", epochs=2)
    assert too_often(epochs, manifest, RunBounds(texts=2 * manifest.bad)) is None
    assert too_often(epochs, manifest, RunBounds(texts=2 * manifest.bad - 1)).reason == "too_much"


def test_how_many_texts_are_in_memory_at_once_changes_nothing(tiny_loaded, tiny_chat):
    """KTO's distance from the base is that of the whole batch."""
    rows = lessons(True, False, None, False, True, True, rejected=WRONG)
    loud = {"alpha": 64, "steps": 4, "batch": 8, "beta": 1.0}
    once, *others = (
        learned(tiny_loaded[0], tiny_chat, rows, settings("kto", **loud, micro_batch=size))[1].losses
        for size in (8, 4, 1)
    )
    for losses in others:
        assert losses == pytest.approx(once, rel=1e-3)


@pytest.mark.parametrize(("objective", "drops"), [("supervised", True), ("dpo", False), ("kto", False)])
def test_what_is_held_against_the_base_has_no_dropout(tiny_loaded, objective, drops):
    adapted = METHODS["lora"](copy.deepcopy(tiny_loaded[0]), settings(objective, dropout=0.5), 1)
    found = [each.p for each in adapted.model.modules() if isinstance(each, torch.nn.Dropout) and each.p]
    assert bool(found) is drops


def test_what_adalora_remembers_goes_to_where_its_parameters_are(tiny_loaded, tiny_chat, rows):
    how = settings("supervised")
    adapted = METHODS["adalora"](copy.deepcopy(tiny_loaded[0]), how, how.steps)
    next(Loop(adapted, objective_of(rows, tiny_chat, how), how, how.steps).run())
    state = adapted.ranks.state()
    adapted.model.to("meta")  # a device that every machine has
    adapted.ranks.restore(state)
    restored = adapted.ranks.state()
    remembered = [each for name in TALLIES for each in restored[name].values()]
    assert remembered and {each.device.type for each in remembered} == {"meta"}
