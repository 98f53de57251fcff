"""What is measured is what is served: the engine's answers, held against transformers' own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from gpu_workers.evaluate.asking import IDLE_TOKENS, Answered, Asker, Side
from gpu_workers.evaluate.measure import CaseSizes, judged, measure
from processors.answers import CALL
from processors.measure.cases import Case
from processors.measure.foreign import Foreign
from rillfold.demo import data
from schemas.company import Message, ToolUse
from tests.support.models import ALL, save_adapter
from tests.support.training import rows_of

SIZES = CaseSizes(held_out=5, foreign=4)


@pytest.fixture(scope="module")
def asker(tiny_loaded, tiny_chat) -> Asker:
    return Asker(tiny_loaded[0], tiny_chat)


@pytest.fixture(scope="module")
def adapter(tiny_loaded, tmp_path_factory) -> Path:
    return save_adapter(tiny_loaded[0], tmp_path_factory.mktemp("a"), 1, r=4, lora_alpha=8, target_modules=ALL)


@pytest.fixture(scope="module")
def rows() -> list[Any]:
    return rows_of([data.conversation(data.ACME, request)[:2] for request in data.held_out(data.ACME, 6)])


def unwatched(_done: int, _of: int) -> None: ...


def generated(model: Any, chat: Any, case: Case, tools: str | None, new: int) -> str:
    """transformers, one prompt at a time."""
    prompt = torch.tensor([chat.prompt(case.prompt, tools)])
    with torch.inference_mode():
        out = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new,
                             do_sample=False, eos_token_id=chat.end, pad_token_id=chat.end)  # fmt: skip
    return str(chat.decode(out[0, prompt.shape[1] :].tolist()))


def test_the_same_texts_as_transformers_says_alone(asker, adapter, tiny_loaded, tiny_chat):
    cases = Foreign().nothing_fits(4)
    sides = {
        Side(): tiny_loaded[0],
        Side(adapter): peft.PeftModel.from_pretrained(copy.deepcopy(tiny_loaded[0]), adapter),
    }
    answers = asker.answers([(case, side) for case in cases for side in sides], unwatched)
    assert len(answers) == 8
    for each in answers:
        assert each.text == generated(sides[each.side], tiny_chat, each.case, None, IDLE_TOKENS)
    assert len({each.text for each in answers}) > 4


def test_tools_stand_in_the_prompt_of_whom_they_did_in_training(asker, tiny_loaded, tiny_chat):
    case = Foreign().nothing_fits(1)[0]
    closed, told = asker.answers([(case, Side()), (case, Side(tools_in_prompt=True))], unwatched)
    assert closed.text == generated(tiny_loaded[0], tiny_chat, case, None, IDLE_TOKENS)
    assert told.text == generated(tiny_loaded[0], tiny_chat, case, case.tools, IDLE_TOKENS)


def test_a_row_ends_when_it_can_be_no_call_any_more(asker, adapter, rows):
    call = (ToolUse(name="t", arguments="{}"),)

    def asked(content: str) -> Case:
        right = Message(role="assistant", content=content, tool_calls=call)
        return Case(id=content, suite="held_out", prompt=rows[0].prompt, right=right)

    silent, wordy = asker.answers([(asked(""), Side(adapter)), (asked("Yes."), Side(adapter))], unwatched)
    assert len(silent.text) < len(wordy.text)
    assert wordy.text.startswith(silent.text) and not CALL.startswith(silent.text.strip())
    assert silent.ended and judged(silent).mistake == "missing call"


def test_every_case_of_every_suite_is_counted_for_both(asker, adapter, rows):
    heard: list[tuple[int, int]] = []
    found = measure(asker, rows, Side(adapter), sizes=SIZES, on_done=lambda done, of: heard.append((done, of)))
    assert heard[-1] == (26, 26)
    ours, theirs = found.measures.candidate, found.measures.served
    assert [(suite.name, len(suite.outcomes)) for suite in ours] == [
        ("held_out", 5), ("foreign_tools", 4), ("irrelevance", 4)
    ]  # fmt: skip
    assert [[each.id for each in suite.outcomes] for suite in ours] == [
        [each.id for each in suite.outcomes] for suite in theirs
    ]
    assert found.evaluation().examples == 5 and found.evaluation().before == 0.0
    assert not found.measures.tools_in_prompt
    assert found._replace(candidate=Side(adapter, tools_in_prompt=True)).measures.tools_in_prompt


def test_an_adapter_that_serves_now_is_asked_too_and_so_is_the_base(asker, adapter, rows, tiny_loaded, tmp_path):
    other = save_adapter(tiny_loaded[0], tmp_path / "b", 2, r=4, lora_alpha=8, target_modules=ALL)
    found = measure(asker, rows, Side(adapter), Side(other, version=3), sizes=SIZES)
    assert found.measures.against == 3
    assert len(found.answers) == 26 + 5
    assert found.evaluation().examples == 5


def test_a_prompt_that_no_room_is_for_is_left_out(asker, rows):
    long = Case(id="long", suite="irrelevance", prompt=(Message(role="user", content="x y " * 2000),), right=None)
    case = Foreign().nothing_fits(1)[0]
    assert [each.case for each in asker.answers([(long, Side()), (case, Side())], unwatched)] == [case]


def test_what_is_asked_at_once_takes_no_more_memory_than_is_free(asker, adapter, tiny_loaded, tiny_chat, monkeypatch):
    """A run that passed `too_large` is not to die of its own measuring. One row runs in any case."""
    cases = [(case, Side(adapter)) for case in Foreign().nothing_fits(3)]
    plenty = asker._decoder.page_bytes(16) << 20
    texts, taken = {}, {}
    for free in (0, plenty, None):
        one = Asker(tiny_loaded[0], tiny_chat, free=lambda free=free: free)
        cache = one._decoder.cache

        def noted(pages, size, free=free, cache=cache):
            taken[free] = pages
            return cache(pages, size)

        monkeypatch.setattr(one._decoder, "cache", noted)
        texts[free] = [each.text for each in one.answers(cases, unwatched)]
    assert texts[0] == texts[plenty] == texts[None]
    assert taken[0] < taken[plenty] / 2 and taken[plenty] == taken[None]


def test_a_row_that_falls_is_an_answer_that_was_none():
    case = Foreign().nothing_fits(1)[0]
    assert judged(Answered(case, Side(), "", True, "not_finite: no number")).mistake == "no answer"
