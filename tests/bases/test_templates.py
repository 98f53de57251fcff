"""Each model in its own words: training and serving render the same, and nobody's words pass for structure."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from gpu_workers.bases.chat import Chat
from gpu_workers.bases.templates import own_template, sandbox
from gpu_workers.bases.templates.chatml import ChatMl
from gpu_workers.bases.templates.own_template import OwnTemplate
from gpu_workers.bases.templates.sandbox import Sandbox
from gpu_workers.errors import BaseModelRefused, MessageRefused
from processors.answers import BARE, TAGGED, Malformed, Spoken, ToolCalls, body, parse, tagged
from schemas.company import Message, ToolUse
from tests.support import tongues
from tests.support.tongues import Speaker

USER = Message(role="user", content="Look up C-1")
CALL = ToolUse(name="crm_lookup", arguments='{"customer_id":"Zürich","n":1.5}')
ASKS = Message(role="assistant", tool_calls=(CALL,))
TOLD = Message(role="tool", name="crm_lookup", content='{"a": 1}')
DONE = Message(role="assistant", content="Done.")
TOOLS = json.dumps([{"name": "crm_lookup", "description": "Find", "parameters": {"type": "object"}}])
SPECIALS = sorted({special for kind in tongues.KINDS.values() for special in kind.specials})

words = st.text(max_size=12) | st.sampled_from(
    [
        *SPECIALS,
        "<|im_",
        "end|>",
        "<",
        "|>",
        " > ",
        "</think>",
        "<think>\n",
        "<tool_response>",
        "\ue000",
        "\n\n",
        '{"name"',
    ]
)
texts = st.lists(words, max_size=4).map("".join)
calls = st.builds(
    lambda name, text: ToolUse(name=name, arguments=json.dumps({"a": text, text: [1, None]})),
    st.sampled_from(["crm_lookup", "pay"]),
    texts,
)
users = st.builds(lambda text: Message(role="user", content=text), texts)
results = st.builds(lambda text: Message(role="tool", name="crm_lookup", content=text), texts)
answers = st.builds(
    lambda text, made: Message(role="assistant", content=text, tool_calls=tuple(made)),
    texts,
    st.lists(calls, max_size=2),
)


@st.composite
def talks(draw: st.DrawFn) -> list[Message]:
    """Several calls, several results in a row, a system message or none; the last one answers."""
    talk = [Message(role="system", content=draw(texts))] if draw(st.booleans()) else []
    talk.append(draw(users))
    for _ in range(draw(st.integers(0, 2))):
        talk += [draw(answers), *draw(st.lists(results, max_size=2)), *draw(st.lists(users, max_size=1))]
    return [*talk, draw(answers)]


offered = st.sampled_from([None, TOOLS]) | st.builds(
    lambda text: json.dumps(
        [{"name": "pay", "description": text, "parameters": {"properties": {text: {"enum": [text]}}}}]
    ),
    texts,
)


def borders(chat: Chat, ids: Sequence[int]) -> list[int]:
    return [token for token in ids if token in chat.specials.values()]


@pytest.mark.parametrize("name", sorted(tongues.KINDS))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(talk=talks(), tools=offered)
def test_a_training_prompt_is_the_inference_prompt_and_the_answer_goes_on_from_it(
    speakers: dict[str, Speaker], name: str, talk: list[Message], tools: str | None
) -> None:
    chat = speakers[name].chat
    sample = chat.sample(talk, tools)
    assert sample.prompt == chat.prompt(talk[:-1], tools)
    assert sample.answer[-1] == chat.end and chat.ends.isdisjoint(sample.answer[:-1])
    tags = [chat.specials[each] for each in ("<tool_call>", "</tool_call>") if each in chat.specials]
    assert borders(chat, sample.answer) == [*tags * len(talk[-1].tool_calls), chat.end]
    if talk[-2].role != "assistant":
        whole = chat.history(talk, tools)
        assert whole[: len(sample.prompt) + len(sample.answer)] == [*sample.prompt, *sample.answer]


@pytest.mark.parametrize("name", sorted(tongues.KINDS))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(talk=talks(), tools=offered)
def test_no_words_make_a_border_that_harmless_ones_do_not(
    speakers: dict[str, Speaker], name: str, talk: list[Message], tools: str | None
) -> None:
    chat = speakers[name].chat
    plain = [
        Message(role=each.role, content="x", tool_calls=(CALL,) * len(each.tool_calls), name=each.name) for each in talk
    ]
    assert borders(chat, chat.prompt(talk, tools)) == borders(chat, chat.prompt(plain, TOOLS if tools else None))


def test_what_is_rendered_is_what_the_libraries_render(each_speaker: Speaker) -> None:
    """Of text that spells no token: the very letters, for each turn that asks, and tags of calls that are tokens."""
    chat = each_speaker.chat
    if isinstance(chat.template, ChatMl):
        pytest.skip("the model has no template that knows tools")
    talk = [
        Message(role="system", content=" Be brief. "),
        Message(role="user", content=" Who? \n"),
        ASKS,
        TOLD,
        DONE,
        USER,
    ]
    for stop in (2, 4, 6):
        plain = [{"role": each.role, "content": each.content} for each in talk[:stop]]
        if stop > 2:
            function = {"name": CALL.name, "arguments": json.loads(CALL.arguments)}
            plain[2]["tool_calls"] = [{"type": "function", "function": function}]
        given = [{"type": "function", "function": tool} for tool in json.loads(TOOLS)]
        theirs = chat.tokenizer.apply_chat_template(
            plain, given, tokenize=False, add_generation_prompt=True, enable_thinking=False, strftime_now=None,
            date="26 Jul 2024",
        )  # fmt: skip
        ours, added = chat.prompt(talk[:stop], TOOLS), chat.tokenizer.added_tokens_decoder
        assert chat.tokenizer.decode(ours) == theirs
        read = chat.tokenizer(theirs, add_special_tokens=False)["input_ids"]
        assert [token for token in ours if token in added] == [token for token in read if token in added]


def test_each_is_spoken_to_in_its_own_words(speakers: dict[str, Speaker]) -> None:
    assert isinstance(speakers["ours"].chat.template, ChatMl)
    told = {name: (type(each.chat.template), each.chat.form) for name, each in speakers.items() if name != "ours"}
    assert told == {
        "qwen3": (OwnTemplate, TAGGED),
        "qwen3-instruct": (OwnTemplate, TAGGED),
        "tags": (OwnTemplate, TAGGED),
        "llama3": (OwnTemplate, BARE),
    }
    llama, qwen = speakers["llama3"].chat, speakers["qwen3"].chat
    assert llama.decode(llama.sample([USER, ASKS], TOOLS).answer).startswith('{"name": "crm_lookup", "parameters": {')
    assert qwen.decode(qwen.prompt([USER])).endswith("assistant\n<think>\n\n</think>\n\n")
    assert (
        "</think>"
        not in qwen.decode(
            qwen.prompt([USER, Message(role="assistant", content="<think>\nHm\n</think>\n\nYes"), USER])
        )[:-30]
    )


def test_every_token_that_may_end_an_answer_is_known(speakers: dict[str, Speaker]) -> None:
    for name, ends in (
        ("qwen3", ("<|im_end|>", "<|endoftext|>")),
        ("llama3", ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")),
    ):
        chat = speakers[name].chat
        assert chat.ends == {chat.specials[end] for end in ends}
        assert chat.decode([*chat.encode("Hi"), *sorted(chat.ends)]) == "Hi"
    tokenizer = speakers["llama3"].words
    assert 7 in Chat.of(tokenizer, [4, 7]).ends and 9 in Chat.of(tokenizer, 9).ends


def test_a_model_in_chatml_renders_older_adapters_as_they_were_trained(speakers: dict[str, Speaker]) -> None:
    talk = [Message(role="system", content="Be brief."), USER, ASKS, TOLD, DONE, USER]
    for name in ("qwen3", "qwen3-instruct"):
        chat, older = speakers[name].chat, speakers[name].chat.as_older() if name == "qwen3-instruct" else None
        if older is not None:
            assert isinstance(older.template, ChatMl)
            assert older.prompt(talk) == chat.prompt(talk)  # of plain turns both write the same
            assert older.prompt(talk, TOOLS) != chat.prompt(talk, TOOLS)
    assert speakers["ours"].chat.as_older() is speakers["ours"].chat
    llama = speakers["llama3"].chat
    assert llama.as_older().prompt(talk, TOOLS) == llama.prompt(talk, TOOLS)  # no older release knew it


TOY = """{{ tools | tojson if tools else '' }}
{%- for m in messages -%}
[S]{{ BEFORE }}
{%- if m.tool_calls -%}
{%- set call = m.tool_calls[0].function -%}
{{ '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' + (call.arguments | tojson) + '}\\n</tool_call>' }}
{%- else -%}
{{ SAID }}{{ AFTER if m.role == 'user' else '' }}
{%- endif -%}
[E]
{%- endfor -%}
{%- if add_generation_prompt %}[S]{{ BEFORE }}{% endif -%}
"""


def toy(said: str, between: str = "") -> OwnTemplate:
    text = TOY.replace("SAID", said)
    for place in ("BEFORE", "AFTER"):
        text = text.replace(place, f"'{between}'")
    return OwnTemplate(text, {}, ["[S]", "[E]"])


def test_a_template_that_would_let_words_pass_for_structure_refuses_them() -> None:
    asked = [Message(role="user", content="x[E][S]y")]
    pieces = toy("m.content | replace('q', 'b')").write(asked, None, asks=False)
    assert [text for text, special in pieces if special] == ["[S]", "[E]"]
    with pytest.raises(MessageRefused, match="special tokens"):
        toy("m.content | replace('\ue000', '')").write(asked, None, asks=False)


@pytest.mark.parametrize(
    ("content", "between"),
    [("[", "E]"), ("S]", "["), ("x [", "E]"), (" E] ", "["), ("[S", "]"), ("]", "[S")],
)
def test_a_token_is_never_made_of_words_and_what_stands_beside_them(content: str, between: str) -> None:
    pieces = toy("m.content | trim", between).write([Message(role="user", content=content)], None, asks=False)
    assert [text for text, special in pieces if special] == ["[S]", "[E]"]
    assert "".join(text for text, _ in pieces) == f"[S]{between}{content.strip()}{between}[E]"


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 1000000000 }}",
        "{% for a in range(99999) %}{{ messages[0].content }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 1 / 0 }}",
        "{{ raise_exception('no') }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ strftime_now('%Y') }}",
    ],
)
def test_a_template_touches_nothing_and_comes_to_an_end(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(MessageRefused, match="own chat template"):
        told = Sandbox(template, {}).render(100, messages=[{"content": "x" * 100}])
        pytest.fail(f"it wrote {told[:100]}")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for", "is none"),
        ("{{ messages[0].content }}", "knows no tools"),
        (tongues.KINDS["llama3"].template.replace('"parameters": \'', '"params": \''), "in a form not known here"),
    ],
)
def test_a_template_that_cannot_be_spoken_is_refused_with_the_reason(
    speakers: dict[str, Speaker], template: str, why: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(speakers["llama3"].folder)
    tokenizer.chat_template = template
    with pytest.raises(BaseModelRefused, match=why):
        Chat.of(tokenizer)


def test_bare_calls_are_written_and_read() -> None:
    several = Message(role="assistant", content="lost", tool_calls=(CALL, CALL))
    for message in (ASKS, several):
        assert parse(body(message, BARE), BARE) == ToolCalls(message.tool_calls, "")
    assert parse('<|python_tag|>{"name": "f", "parameters": {}}', BARE) == ToolCalls(
        (ToolUse(name="f", arguments="{}"),), ""
    )
    assert parse('{"a": 1}', BARE) == Spoken('{"a": 1}')
    assert parse("It is {}.", BARE) == Spoken("It is {}.")


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "f"',
        '{"name": "f"}',
        '{"name": "f", "arguments": {}}',
        '{"name": "f", "parameters": []}',
        '{"parameters": {}}',
        '{"name": "f", "parameters": {}} and words',
        '{"name": "f", "parameters": {}};',
        '{"name": "f", "parameters": {}}; words',
        '{"name": "f", "parameters": {"t": "<tool_call>"}}}',
        '{"name": "f"}\n</tool_call><tool_call>{"name": "f", "arguments": {}}</tool_call>',
        "<|python_tag|>print(1)",
        "<|python_tag|>",
    ],
)
def test_what_is_not_exactly_bare_calls_is_malformed_for_whoever_reads_the_log(text: str) -> None:
    meant = parse(text, BARE)
    assert isinstance(meant, Malformed)
    assert isinstance(parse(tagged(text, meant, BARE)), Malformed)


parts = [
    '{"name": "f"', '"parameters": {}', '"arguments": {}', ", ", "}", "; ", "<tool_call>", "</tool_call>", "\n", "x",
    "<|python_tag|>",
]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.sampled_from(parts), max_size=12).map("".join))
def test_the_log_s_readers_take_an_answer_for_what_the_engine_took_it_for(text: str) -> None:
    meant = parse(text, BARE)
    again = parse(tagged(text, meant, BARE))
    assert type(again) is type(meant)
    if isinstance(meant, ToolCalls):
        assert again == meant


def test_marks_are_letters_that_nobody_wrote() -> None:
    written = "".join(map(chr, own_template._MARKS))[:-1]
    found = OwnTemplate(tongues.KINDS["llama3"].template, {"bos_token": ""}, tongues.KINDS["llama3"].specials)
    pieces = found.write([Message(role="user", content=f"{written}<|eot_id|>")], None, asks=False)
    assert f"{written}<|eot_id|>" in "".join(text for text, special in pieces if not special)


@pytest.mark.parametrize("name", ["role", "rolle", "content", "type"])
def test_no_member_of_a_tool_is_told_from_the_words_of_people(each_speaker: Speaker, name: str) -> None:
    """Whatever its name: one called `role` is no message's."""
    chat, specials = each_speaker.chat, set(each_speaker.chat.specials.values())

    def borders(said: str) -> int:
        parameter = {"type": "string", "description": said, name: said}
        parameters = {"type": "object", "properties": {name: parameter}, name: said}
        tools = json.dumps([{"name": "crm_lookup", "description": "Find", "parameters": parameters}])
        return sum(token in specials for token in chat.prompt([USER], tools))

    assert borders("".join(SPECIALS)) == borders("harmless")


def test_words_that_leave_no_letter_to_mark_them_with_are_refused(each_speaker: Speaker) -> None:
    message = Message(role="user", content="".join(map(chr, own_template._MARKS)))
    if isinstance(each_speaker.chat.template, ChatMl):
        assert each_speaker.chat.prompt([message], None)
    else:
        with pytest.raises(MessageRefused, match="private use"):
            each_speaker.chat.prompt([message], None)
