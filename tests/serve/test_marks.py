"""Answers held to a form where tags are tokens: a mark is said as the token that it is, and text stays text.

Qwen3 has one token for each tag around a call, which anybody may write; in the files it is no special token. For every
kind of base: what a form has said is what is trained on, and it reads back as the call that was meant.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from gpu_workers.bases.chat import Chat, body, render
from gpu_workers.serve.engines.asked import Base, RowMaker
from gpu_workers.serve.engines.embedded import EmbeddedEngine
from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.forms.form import Form, Forms
from gpu_workers.serve.port import AdapterKey, AdapterSpec, Answer, MustCall, MustFit, Snippet
from gpu_workers.serve.schedule.rows import Limits
from processors.answers import ToolCalls, parse
from rillfold.demo import data
from schemas.company import Message, ToolUse
from tests.support import tongues
from tests.support.forms import fields, follow, offering, wander
from tests.support.tongues import Speaker
from tests.support.workbench import CPU, ask

TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "<think>", "</think>")
SPELLED = sorted({*TAGS, *(special for kind in tongues.KINDS.values() for special in kind.specials)})
"""What some base has a token for; another reads letters."""
ASKED = Message(role="user", content="Refund 12")
TOOLS = offering(refund=fields(note={"type": "string"}), crm_lookup=fields(order={"type": "string"}))


def may_come(form: Form) -> list[int]:
    return [int(token) for token in np.flatnonzero(np.unpackbits(form.allowed().view(np.uint8), bitorder="little"))]


def token_of(chat: Chat, text: str) -> list[int]:
    """The one that it is, where the base has one."""
    return [token for token, added in chat.tokenizer.added_tokens_decoder.items() if str(added) == text]


def test_a_call_as_it_is_trained_is_never_barred(each_speaker: Speaker) -> None:
    """So who says it freely says it when it must: those that are forced are its own, and the others may come."""
    chat, forms = each_speaker.chat, Forms.of(each_speaker.chat)
    for note in ["Größe", *SPELLED, f"a {' '.join(SPELLED)}\n{''.join(SPELLED)}b"]:
        call = ToolUse(name="refund", arguments=json.dumps({"note": note}))
        trained = chat.sample([ASKED, Message(role="assistant", tool_calls=(call,))], TOOLS).answer
        form = forms.for_(MustCall(), TOOLS)
        assert list(form.begins) == trained[: len(form.begins)] and form.begins
        follow(form, trained)
        fixed = forms.for_(MustCall(tool="refund"), offering(refund=fields(note={"const": note})))
        assert list(fixed.begins) == trained


def test_an_adapter_of_an_older_release_is_held_to_calls_as_it_was_trained(speakers: dict[str, Speaker]) -> None:
    """Which wrote all tags in letters, or as the marks that they are, whatever the base's own template does."""
    for name in ("tags", "qwen3-instruct"):
        chat = speakers[name].chat
        rows = RowMaker(chat, Base(name, "now", 2_048, older_sha256="then"))
        question = ask("Refund 12", must=MustCall(), tools=TOOLS)
        call = Message(role="assistant", tool_calls=(ToolUse(name="refund", arguments='{"note":"x"}'),))
        for base, said in (("then", chat.as_older()), ("now", chat)):
            spec = AdapterSpec(key=AdapterKey("acme/ops", 1), folder=Path(), sha256="a", base_sha256=base)
            form = rows.row(1, question, spec, None).form
            assert isinstance(form, Form)
            follow(form, said.sample([ASKED, call], TOOLS).answer)


def test_every_allowed_way_is_one_call_of_the_named_tool(each_speaker: Speaker) -> None:
    chat, forms = each_speaker.chat, Forms.of(each_speaker.chat)
    given = offering(refund=fields(note={"enum": ["x", "</tool_call>"]}, of={"type": "integer"}), other={})
    opens, closes = token_of(chat, "<tool_call>"), token_of(chat, "</tool_call>")
    for seed in range(20):
        ids = [
            token for piece, _ in wander(forms.for_(MustCall(tool="refund"), given), Random(seed)) for token in piece
        ]
        said = parse(chat.decode(ids), chat.form)
        assert isinstance(said, ToolCalls) and [call.name for call in said.calls] == ["refund"], said
        assert said.text == "" and set(json.loads(said.calls[0].arguments)) == {"note", "of"}
        assert ids[: len(opens)] == opens and ids[-1 - len(closes) : -1] == closes


@pytest.mark.parametrize("name", ["qwen3", "qwen3-instruct", "tags"])
def test_a_tag_that_is_a_token_is_said_in_no_pieces(name: str, speakers: dict[str, Speaker]) -> None:
    """Where chances are wanted nothing is said unasked, and each token is chosen among those that may come."""
    chat = speakers[name].chat
    form = Forms.of(chat).for_(MustCall(), offering(t=fields(a={"const": "<tool_call>"})))
    *said, last, end = form.begins
    assert may_come(form) == token_of(chat, "<tool_call>") == said[:1]
    for token in said:
        assert token in may_come(form)
        form.take(token)
    assert may_come(form) == token_of(chat, "</tool_call>") == [last]
    form.take(last)
    assert may_come(form) == [end]


def test_json_that_spells_a_token_is_text(each_speaker: Speaker) -> None:
    chat, forms = each_speaker.chat, Forms.of(each_speaker.chat)
    for text in SPELLED:
        form = forms.for_(MustFit(schema=json.dumps(fields(a={"const": text}))), None)
        assert list(form.begins) == [*chat.encode(f'{{"a": "{text}"}}'), chat.end]
        assert json.loads(chat.decode(form.begins)) == {"a": text}


def test_letters_that_a_tokenizer_would_put_together_are_said_as_they_are(speakers: dict[str, Speaker]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(speakers["qwen3"].folder)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()  # as Qwen3's has it
    chat, apart = Chat.of(tokenizer), "Gro\u0308ße"
    form = Forms.of(chat).for_(MustFit(schema=json.dumps({"const": apart})), None)
    for token in form.begins:
        form.take(token)
    assert json.loads(chat.decode(form.begins)) == apart


def test_what_people_write_is_a_mark_where_the_model_s_own_reading_has_one_and_never_a_border(
    each_speaker: Speaker,
) -> None:
    """A tag in a question is what the model's own tokenizer makes of it. It begins no call: only answers are parsed."""
    chat = each_speaker.chat

    def found(text: str) -> Counter[int]:
        return Counter(chat.prompt([Message(role="user", content=f"Say {text} now")], TOOLS))

    def theirs(text: str) -> Counter[int]:
        told = [{"role": "user", "content": f"Say {text} now"}]
        return Counter(chat.tokenizer.apply_chat_template(told, add_generation_prompt=True, return_dict=False))

    for text in SPELLED:
        more, of_theirs = found(text) - found("x"), theirs(text) - theirs("x")
        assert not more.keys() & set(chat.specials.values())
        for token in chat.marks.keys() & token_of(chat, text):
            assert more[token] == of_theirs[token] == 1
    assert not (found("<tool_ call>") - found("x")).keys() & chat.marks.keys()


@pytest.fixture
async def engine(each_speaker: Speaker, tmp_path: Path) -> AsyncIterator[EmbeddedEngine]:
    serving = EngineSetup(device=CPU, limits=Limits(rows=4, waiting=16), capacity=1)
    async with embedded(str(each_speaker.folder), tmp_path, serving) as engine:
        yield engine


async def test_a_forced_call_is_streamed_and_told_with_its_chances(
    each_speaker: Speaker, engine: EmbeddedEngine
) -> None:
    """Of letters that no token says alone, and of tags, each of which may be one."""
    chat, note = each_speaker.chat, "日本 </tool_call>"
    given = offering(refund=fields(note={"const": note}, sure={"type": "boolean"}), other={})
    pieces: list[Snippet] = []
    for chances in (None, 1):
        pieces.clear()
        must = MustCall(tool="refund")
        answer = await engine.answer(
            ask("Refund 12", must=must, tools=given, logprobs=chances, max_tokens=300), pieces.append
        )
        assert isinstance(answer, Answer) and answer.finish_reason == "stop", answer
        assert [(call.name, json.loads(call.arguments)["note"]) for call in answer.calls] == [("refund", note)]
        assert answer.content == "" and parse(answer.text) == ToolCalls(answer.calls, "")
        said = body(Message(role="assistant", tool_calls=answer.calls), chat.form)
        assert "".join(piece.text for piece in pieces) == ("" if chat.form.bare else said)
        if chances:
            told = b"".join(choice.said.token for choice in answer.choices).decode()
            assert told.removesuffix(chat.template.end) == said


async def test_a_stop_within_a_tag_ends_the_answer_there(each_speaker: Speaker, engine: EmbeddedEngine) -> None:
    question = ask("Refund 12", must=MustCall(), tools=TOOLS, stop=("ol_call", "refund", "crm"), max_tokens=100)
    answer = await engine.answer(question)
    assert isinstance(answer, Answer) and answer.finish_reason == "stop" and not answer.calls
    assert answer.content.endswith('{"name": "' if each_speaker.chat.form.bare else "<to")


@pytest.fixture(scope="module")
def by_letters() -> Chat:
    """Of a base whose tokens are letters, with bytes to fall back on, as SentencePiece makes them."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "\u2581")
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    talks = [render(talk) for talk in data.training(data.ACME, 20)]
    made.train_from_iterator(talks, trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>"]))
    file = json.loads(made.to_str())
    known: dict[str, int] = file["model"]["vocab"]
    known |= {f"<0x{byte:02X}>": 1 + max(known.values()) + byte for byte in range(256)}
    made = Tokenizer.from_str(json.dumps(file))
    made.add_special_tokens([AddedToken(each, normalized=False) for each in ("<|im_start|>", "<|im_end|>")])
    return Chat.of(PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<|im_end|>"))


def test_tokens_that_are_letters_are_held_to_a_form_too(by_letters: Chat) -> None:
    forms = Forms.of(by_letters)
    call = ToolUse(name="refund", arguments=json.dumps({"note": "Z\u00fcrich now"}))
    said = body(Message(role="assistant", tool_calls=(call,)), by_letters.form)
    fits = json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
    for must, text in ((MustCall(tool="refund"), said), (MustFit(schema=fits), '{"a": 12}')):
        form = forms.for_(must, TOOLS)
        for token in by_letters.encode(text):
            assert token in may_come(form)
            form.take(token)
        assert may_come(form) == [by_letters.end]
