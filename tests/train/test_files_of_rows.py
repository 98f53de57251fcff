"""A dataset of certain files: their rows and nobody else's, and what one is measured on is trained on in none."""

from __future__ import annotations

from pathlib import Path

from processors.dataset.selection import Selection
from processors.dataset.turns import is_held_out, question
from processors.measure.cases import of_nobodys_training
from processors.training.settings import TrainSettings, spelled
from tests.support.learning import built, log_of, talk

QUESTIONS = [f"What is due on day {n}?" for n in range(40)]


async def test_rows_of_one_file_whatever_else_the_company_said_and_whatever_the_file_is_called(tmp_path: Path) -> None:
    told = [talk(one, "Nothing.", entity="file-1") for one in QUESTIONS]
    noise = [talk(one, "Something.", entity=other) for one in QUESTIONS for other in ("file-2", None)]
    some = await built(await log_of(told + noise), tmp_path, select=Selection(entities=("file-1",)))
    alone = [talk(one, "Nothing.", entity="file-9") for one in QUESTIONS]
    again = await built(await log_of(alone), tmp_path, select=Selection(entities=("file-9",)))
    assert [row.answer.content for row in some.lessons] == ["Nothing."] * len(QUESTIONS)
    assert again.rows == some.rows and again.manifest.rows_sha256 == some.manifest.rows_sha256
    assert {row.held_out for row in some.lessons} == {True, False}


async def test_of_a_file_that_is_measured_on_no_question_is_trained_on(tmp_path: Path) -> None:
    trained = [talk(one, "Nothing.", entity="train") for one in QUESTIONS]
    measured = [talk(f" {QUESTIONS[0]}\n", "It is not known.", entity="measure"), talk("Why?", "So.", entity="measure")]
    select = Selection(entities=("train", "measure"), held_out=("measure",))
    found = await built(await log_of(measured + trained), tmp_path, select=select)
    held_out = {row.prompt[0].content.strip() for row in found.lessons if row.held_out}
    of_the_rule = {one for one in QUESTIONS if is_held_out(one)}
    assert held_out == {QUESTIONS[0], "Why?"} | of_the_rule and QUESTIONS[0] not in of_the_rule
    assert found.manifest.trained == len(QUESTIONS) - len({QUESTIONS[0]} | of_the_rule)


SELECTIONS = (Selection(), Selection(entities=("val",)), Selection(held_out=("val",)), Selection(held_out=("val", "x")))


async def test_what_one_selection_is_measured_on_beside_a_version_no_other_one_is_trained_on(tmp_path: Path) -> None:
    questions = [f"Where is order {n}?" for n in range(200)]
    told = [talk(one, "Here.", entity=None if n % 4 else "val") for n, one in enumerate(questions)]
    log = await log_of(told)
    found = [(await built(log, tmp_path, select=each)).lessons for each in SELECTIONS]
    taught = [{question(row.prompt) for row in rows if not row.held_out} for rows in found]
    asked = [{question(row.prompt) for row in rows if of_nobodys_training(row)} for rows in found]
    assert all(asked) and not any(some & other for some in asked for other in taught)
    assert len(asked[2]) < sum(row.held_out for row in found[2]), "what it holds out beside others were taught"


def test_a_selection_without_files_is_written_as_it_always_was() -> None:
    assert "entities" not in spelled(TrainSettings()) and "held_out" not in spelled(TrainSettings())
