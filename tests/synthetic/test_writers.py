"""Who words requests instead of the templates, and judges what was made: what is made before it goes stays."""

from __future__ import annotations

import threading

import pytest

from processors.errors import ModelAway
from processors.synthetic.generator import Generator
from processors.synthetic.mix import first_mix
from rillfold.auto_lora.writers import TASK, HttpCheck, HttpWriter
from tests.support.chatting import answering


def made_with(tools, writer=None, judge=None):
    generator = Generator(tools, judge, writer)
    mix = first_mix([tool.name for tool in tools], 24, 0.7)
    return generator.learned(mix, 1, generator.held_out([]))


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_an_endpoint_words_requests(tools, end):
    with answering(lambda text: f'"Good day! {text.removeprefix(TASK)}"') as url:
        batch = made_with(tools, HttpWriter(url + end))
    assert sum(each.question.startswith("Good day! ") for each in batch.made) > 12 and not batch.notes


@pytest.mark.parametrize("said", [b"<html>", b"{}", b'{"choices": []}', b"[1]"], ids=["html", "empty", "none", "list"])
def test_what_is_no_answer_ends_the_asking_with_one_line(tools, said):
    with answering(lambda _: said) as url:
        batch = made_with(tools, HttpWriter(url, "m"))
    (note,) = batch.notes
    assert len(batch.made) == 24 and note.startswith(f"the writer m at {url} gives no answer: ")


def test_an_endpoint_that_is_down_or_slow_ends_the_asking(tools):
    assert "gives no answer" in made_with(tools, HttpWriter("http://127.0.0.1:9", seconds=2)).notes[0]
    going = threading.Event()
    with answering(lambda text: text if going.wait(5) else b"") as url:
        with pytest.raises(ModelAway, match="Timeout"):
            HttpWriter(url, seconds=0.05)("Say this.", 0.5)
        going.set()


def test_a_judge_is_heard_and_one_that_talks_nonsense_or_is_down_is_asked_no_more(tools):
    with answering(lambda talk: "No." if "send_quote {" in talk else "Yes, it is.") as url:
        batch = made_with(tools, judge=HttpCheck(url))
    assert batch.dropped["judge"] and len(batch.made) == 24 and not batch.notes
    assert not any(use.name == "send_quote" for each in batch.made for it in each.messages for use in it.tool_calls)
    with answering(lambda _: "The weather is fine.") as url:
        batch = made_with(tools, judge=HttpCheck(url, "m"))
    assert batch.notes == (f"the judge m at {url} talks nonsense: 'The weather is fine.'. Rules judge the rest.",)
    assert len(batch.made) == 24
    (note,) = made_with(tools, judge=HttpCheck("http://127.0.0.1:9", seconds=2)).notes
    assert "gives no answer" in note and note.endswith("Rules judge the rest.")
