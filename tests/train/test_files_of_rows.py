"""A dataset of certain files: their rows and nobody else's, and what one is measured on is trained on in none."""

from __future__ import annotations

from pathlib import Path

from processors.dataset.selection import Selection
from processors.dataset.turns import is_held_out
from processors.training.settings import TrainSettings, spelled
from tests.support.learning import built, log_of, talk

QUESTIONS = [f"What is due on day {n}?" for n in range(40)]


async def test_rows_of_one_file_whatever_else_the_company_said_and_whatever_the_file_is_called(tmp_path: Path) -> None:
    told = [talk(question, "Nothing.", entity="file-1") for question in QUESTIONS]
    noise = [talk(question, "Something.", entity=other) for question in QUESTIONS for other in ("file-2", None)]
    some = await built(await log_of(told + noise), tmp_path, select=Selection(entities=("file-1",)))
    alone = [talk(question, "Nothing.", entity="file-9") for question in QUESTIONS]
    again = await built(await log_of(alone), tmp_path, select=Selection(entities=("file-9",)))
    assert [row.answer.content for row in some.lessons] == ["Nothing."] * len(QUESTIONS)
    assert again.rows == some.rows and again.manifest.rows_sha256 == some.manifest.rows_sha256
    assert {row.held_out for row in some.lessons} == {True, False}


async def test_of_a_file_that_is_measured_on_no_question_is_trained_on(tmp_path: Path) -> None:
    trained = [talk(question, "Nothing.", entity="train") for question in QUESTIONS]
    measured = [talk(f" {QUESTIONS[0]}\n", "It is not known.", entity="measure"), talk("Why?", "So.", entity="measure")]
    select = Selection(entities=("train", "measure"), held_out=("measure",))
    found = await built(await log_of(measured + trained), tmp_path, select=select)
    held_out = {row.prompt[0].content.strip() for row in found.lessons if row.held_out}
    assert held_out == {QUESTIONS[0], "Why?"} and any(map(is_held_out, QUESTIONS[1:])), "no other is held out"
    assert found.manifest.trained == len(QUESTIONS) - 1


def test_a_selection_without_files_is_written_as_it_always_was() -> None:
    assert "entities" not in spelled(TrainSettings()) and "held_out" not in spelled(TrainSettings())
