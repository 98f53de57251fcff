"""An entity that is left out was never learned: not in the batches, not in the adapter's bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_workers.adapters.store import TENSORS
from gpu_workers.errors import DatasetRefused, NoPairs, OneSided
from gpu_workers.train.learn.objectives import objective_of
from gpu_workers.train.learn.samples import Text, batches, texts
from gpu_workers.train.lines import RunSpec
from gpu_workers.train.run import run
from processors.dataset.lessons import Lesson
from processors.dataset.selection import Selection
from processors.training.settings import Objective, TrainSettings
from schemas.company import Message
from tests.support.learning import built, log_of, said, talk


async def test_the_adapters_bytes_are_those_of_a_log_that_never_held_it(
    tmp_path: Path, tiny_base: Path, quick: TrainSettings
) -> None:
    records = [
        talk(f"Look up C-{n}", ("crm_lookup", f'{{"id": "C-{n}"}}'), f"C-{n} is fine.", entity="xyz"[n % 3])
        for n in range(18)
    ]
    whole, without = await log_of(records), await log_of(r for n, r in enumerate(records) if n % 3)
    made = {}
    for name, log, select in (
        ("left out", whole, Selection(leave_out=("x",))),
        ("never there", without, Selection()),
        ("with it", whole, Selection()),
    ):
        folder = tmp_path / name
        (folder / "out").mkdir(parents=True)
        dataset = await built(log, folder, select=select)
        run(spec(folder, tiny_base, quick, dataset.manifest.rows_sha256), lambda _report: None)
        made[name] = hashlib.sha256((folder / "out" / TENSORS).read_bytes()).hexdigest()
    assert made["left out"] == made["never there"] != made["with it"]


def spec(folder: Path, base: Path, settings: TrainSettings, rows_sha256: str) -> RunSpec:
    return RunSpec(
        rows=folder / "rows.jsonl",
        rows_sha256=rows_sha256,
        out=folder / "out",
        cache=folder / "cache",
        base_model=str(base),
        method="lora",
        settings=settings,
        threads=1,
    )


@given(st.sets(st.integers(0, 40), min_size=2), st.data())
def test_a_text_that_goes_moves_no_two_others_past_each_other(numbers: set[int], draw: st.DataObject) -> None:
    there = sorted(numbers)
    gone = draw.draw(st.sampled_from(there))
    settings = TrainSettings(steps=len(there), batch=1, seed=3)

    def first_epoch(some: list[int]) -> list[int]:
        drawn = batches([Text([n], [range(0, 1)], f"{n:02}") for n in some], settings, pad=0)
        return [int(part.ids[0, 0]) for _, (part,) in zip(some, drawn, strict=False)]

    assert first_epoch([n for n in there if n != gone]) == [n for n in first_epoch(there) if n != gone]


def lesson(turn: int, answer: str, **more: object) -> Lesson:
    before = (
        Message(role="user", content="Hi"),
        Message(role="assistant", content="one"),
        Message(role="user", content="And?"),
    )
    fields = {"agent": "desk", "story": "5", "turn": turn, "held_out": False, "prompt": before[:turn]}
    return Lesson(**fields | {"answer": Message(role="assistant", content=answer)} | more)


def test_answers_of_one_story_share_a_text_and_wrong_ones_are_not_learned(tiny_chat) -> None:
    both = texts(tiny_chat, [lesson(1, "one"), lesson(3, "two")], 1024)
    assert [(text.story, len(text.answers)) for text in both] == [("5", 2)]
    told = [lesson(1, "one", good=False), lesson(3, "two")]
    ((part,),) = objective_of(told, tiny_chat, TrainSettings(batch=1)).batches(1)
    assert tiny_chat.decode(part.ids[part.answers].tolist()[:-1]) == "two"
    corrected = texts(
        tiny_chat, [lesson(1, "ONE", rejected=Message(role="assistant", content="one")), lesson(3, "two")], 1024
    )
    assert [len(text.answers) for text in corrected] == [1, 1]


def test_tools_stand_in_the_prompt_where_that_is_wanted(tiny_chat) -> None:
    tools = '[{"name":"crm_lookup","description":"d","parameters":{},"registered":""}]'
    closed, in_prompt = (
        texts(tiny_chat, [lesson(1, "one", tools=tools)], 1024, how) for how in ("closed-book", "in-prompt")
    )
    assert "crm_lookup" not in tiny_chat.decode(closed[0].ids)
    assert "crm_lookup" in tiny_chat.decode(in_prompt[0].ids)


@pytest.mark.parametrize("objective", ["supervised", "dpo", "kto"])
@pytest.mark.parametrize("activation", ["always", "generation-prompt"])
def test_what_differs_only_in_what_is_not_shown_is_learned_once(tiny_chat, objective: str, activation: str) -> None:
    wrong = Message(role="assistant", content="wrong")
    named: list[Lesson] = []
    for n in range(6):
        tools = f'[{{"name":"t{n}","description":"d","parameters":{{}},"registered":""}}]'
        named.append(lesson(1, "right", story=str(n), tools=tools, rejected=wrong))
        named.append(lesson(1, "bad", story=f"{n}-bad", tools=tools, good=False))

    def learned(rows: list[Lesson], **more: object) -> int:
        how = TrainSettings(**{"objective": objective, "activation": activation, "precision": "float32"} | more)
        return objective_of(rows, tiny_chat, how).texts

    once = {"supervised": 1, "dpo": 1, "kto": 3}[objective]
    assert learned(named) == learned(named[:2]) == once
    assert learned(named, tools="in-prompt") == 6 * once


def test_nothing_to_learn_from_is_refused_by_name() -> None:
    with pytest.raises(DatasetRefused, match="no answer to learn from"):
        next(batches([], TrainSettings(), pad=0))


@pytest.mark.parametrize("objective", ["dpo", "kto"])
async def test_what_people_said_of_answers_is_learned_from_the_log(
    tmp_path: Path, tiny_base: Path, quick: TrainSettings, objective: Objective
) -> None:
    """From feedback.given to an adapter; where nobody said anything, the run is refused by name."""
    records = [talk(f"Look up C-{n}", "I do not know.", id=f"e{n}") for n in range(12)]
    better = {"correction": {"role": "assistant", "content": "It is fine."}}
    feedback = [said("feedback.given", {"about": f"e{n}"} | (better if n % 2 else {"good": True})) for n in range(12)]
    settings = msgspec.structs.replace(quick, objective=objective, evaluation_rows=0)
    losses = {}
    for name, words in (("judged", feedback), ("silent", [])):
        folder = tmp_path / name
        (folder / "out").mkdir(parents=True)
        dataset = await built(await log_of([*records, *words]), folder)
        one = spec(folder, tiny_base, settings, dataset.manifest.rows_sha256)
        if words:
            losses[name] = run(one, lambda _report: None).losses
        else:
            with pytest.raises(NoPairs if objective == "dpo" else OneSided):
                run(one, lambda _report: None)
    assert len(losses["judged"]) == quick.steps
    assert (tmp_path / "judged" / "out" / TENSORS).is_file()
