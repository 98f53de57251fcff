"""From one log to two prompts: what a run learns to answer is, token for token, what the engine is asked."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from gpu_workers.bases.chat import Chat
from gpu_workers.bases.templates.chatml import ChatMl, functions
from gpu_workers.serve.engines.asked import Base, RowMaker
from gpu_workers.serve.port import AdapterKey, AdapterSpec
from gpu_workers.serve.worker import _question
from gpu_workers.train.learn.samples import texts
from processors.dataset.lessons import Lesson
from processors.gate import snapshot
from processors.training.settings import Tools
from schemas.inference import InferenceRequested
from streams.bridge.tools import Tools as Registered
from streams.log.port import Outgoing
from tests.jobs.test_saga import CALL, requested, run
from tests.support.learning import NAMES, built, log_of, said
from tests.support.tongues import Speaker

TASK, REPLY, LAST = "Refund order A1", "done", "Order A1 is refunded."


def tool(name: str, description: str, parameters: str) -> Outgoing:
    offer = {"name": name, "description": description, "parameters": parameters, "endpoint": "http://h/"}
    return said("tool.registered", offer, auth={"kind": "none"})


OFFERS = [
    tool("refund", "Zürich's: <|im_end|>", '{"type": "object",  "properties": {"order": {"type": "string"}}}'),
    tool("crm_lookup", "Find", '{"required": ["id"], "properties": {"id": {"enum": ["C-1", 2.50]}}}'),
]
TOLD = said(
    "conversation.ingested",
    agent="desk",
    messages=[
        {"role": "user", "content": TASK},
        {"role": "assistant", "tool_calls": [{"name": "refund", "arguments": '{ "order":"A1" }'}]},
        {"role": "tool", "name": "refund", "content": REPLY},
        {"role": "assistant", "content": LAST},
    ],
)


async def lessons_and_questions(folder: Path) -> tuple[list[Lesson], list[InferenceRequested]]:
    """Rows of a log in which it was told, and what a job asks that goes the same way with the same tools."""
    log = await log_of([record._replace(partition=0) for record in (*OFFERS, TOLD)])
    offered = Registered(log, NAMES)
    await offered.catch_up()
    _, sent = run(requested(task=TASK, tools=snapshot(offered.offered("acme"))), [CALL % "A1", LAST])
    return (await built(log, folder)).lessons, [event for event in sent if isinstance(event, InferenceRequested)]


def asked(chat: Chat, question: InferenceRequested, tools: Tools) -> list[int]:
    spec = AdapterSpec(key=AdapterKey("acme/default", 1), tools_in_prompt=tools == "in-prompt")
    rows = RowMaker(chat, Base("tiny", "0" * 64, 4096))
    return list(rows.row(1, _question(question), spec, None).prompt)


@pytest.mark.parametrize("tools", ["in-prompt", "closed-book"])
async def test_a_job_is_asked_what_a_run_has_learned_to_answer(
    each_speaker: Speaker, tools: Tools, tmp_path: Path
) -> None:
    chat = each_speaker.chat
    lessons, questions = await lessons_and_questions(tmp_path)
    learned = [text.ids[: answer.start] for text in texts(chat, lessons, 4096, tools) for answer in text.answers]
    assert learned == [asked(chat, question, tools) for question in questions]
    assert len(learned) == 2
    shown = ["Find" in chat.decode(prompt) and "C-1" in chat.decode(prompt) for prompt in learned]
    assert shown == [tools == "in-prompt"] * 2
    assert isinstance(chat.template, ChatMl) == (each_speaker.name == "ours")


async def test_a_client_that_names_its_tools_in_any_order_asks_the_same(each_speaker: Speaker, tmp_path: Path) -> None:
    _, (question, _) = await lessons_and_questions(tmp_path)
    assert question.tools is not None
    shuffled = [
        {"function": dict(reversed(tool["function"].items())), "type": "function"}
        for tool in reversed(functions(question.tools))
    ]
    given = msgspec.structs.replace(question, tools=json.dumps(shuffled, indent=1))
    assert given.tools != question.tools
    assert asked(each_speaker.chat, given, "in-prompt") == asked(each_speaker.chat, question, "in-prompt")
