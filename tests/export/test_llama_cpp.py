"""llama.cpp is started, asked, killed and started again; whatever goes wrong with it is one line with the remedy."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpu_workers.errors import LlamaCppDied, LlamaCppFailed, NotForLlamaCpp
from gpu_workers.export import llama_server
from rillfold.llama_cpp import LlamaCppClient
from rillfold.settings import from_env
from schemas.company import Message
from tests.export.conftest import Exported

ASKED = [{"role": "user", "content": "Refund 3 euros to Ms Paris."}]
STANDS_IN = Path(__file__).parent / "standing_in.py"


def test_chats_in_openais_form_by_the_base_and_by_each_adapter(running: LlamaCppClient, one_export: Exported) -> None:
    base = running.chat(ASKED, max_tokens=8)
    adapted = running.chat(ASKED, adapter="LoRA of rank 8", max_tokens=8)
    assert base["model"] == "base" and adapted["model"] == "LoRA of rank 8"
    first, other = (each["choices"][0] for each in (base, adapted))
    assert first["finish_reason"] == "length" and first["message"]["role"] == "assistant"
    assert first["message"]["content"] != other["message"]["content"]
    assert running.chat(ASKED, max_tokens=8) == base, "what one adapter read, no other answers from"
    assert base["usage"]["completion_tokens"] == 8
    with pytest.raises(NotForLlamaCpp, match="No adapter 'nobody' was loaded; known: LoRA of rank 8, "):
        running.chat(ASKED, adapter="nobody")


def test_an_activated_adapter_is_not_asked_without_its_invocation(running: LlamaCppClient) -> None:
    with pytest.raises(NotForLlamaCpp, match="acts from its invocation on"):
        running.complete([5, 6, 7], adapter="activated LoRA", max_tokens=2)


def test_one_that_knows_no_activated_adapters_is_too_old(
    running: LlamaCppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.start()
    ask = running.server.ask

    def forgetful(method: str, path: str, body: object = None) -> Any:
        answer = ask(method, path, body)
        return [{"path": each["path"]} for each in answer] if path == "/lora-adapters" else answer

    monkeypatch.setattr(running.server, "ask", forgetful)
    try:
        with pytest.raises(LlamaCppFailed, match=r"7\.gguf acts from its invocation on.*too old"):
            running._learn()
    finally:
        monkeypatch.undo()
        running._learn()


def test_calls_of_tools_are_read_by_the_one_parser(running: LlamaCppClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpu_workers.export.llama_chat import Completed

    def said(text: str) -> dict[str, Any]:
        monkeypatch.setattr(running, "complete", lambda *_, **__: Completed(text, [1], True))
        return running.chat(ASKED)["choices"][0]

    call = '<tool_call>\n{"name": "refund", "arguments": {"euros": 3}}\n</tool_call>'
    once = said(f"At once.\n{call}\n{call}")
    assert once["finish_reason"] == "tool_calls" and once["message"]["content"] == "At once."
    assert [each["function"] for each in once["message"]["tool_calls"]] == [
        {"name": "refund", "arguments": '{"euros": 3}'}
    ] * 2
    half = said("<tool_call>\n{")
    assert half["finish_reason"] == "stop" and "tool_calls" not in half["message"], "never guessed"


def test_killed_in_the_middle_it_says_so_and_is_started_again(one_export: Exported) -> None:
    with LlamaCppClient(one_export.gguf, threads=1, context=256) as client:
        before, first = client.chat(ASKED, max_tokens=4), client.server.pid
        assert first is not None and client.server._http is not None
        # As the question goes out: no earlier, or it would be started again at once.
        client.server._http.event_hooks = {"request": [lambda _: os.kill(first, signal.SIGKILL)]}
        with pytest.raises(LlamaCppDied, match=r"ended with code -9 while it was asked.*Ask again"):
            client.chat(ASKED, max_tokens=4)
        assert client.chat(ASKED, max_tokens=4)["choices"] == before["choices"]
        assert client.server.pid not in (None, first)
        client.restart()
        assert client.chat(ASKED, max_tokens=4) == before
    assert client.server.pid is None


def cut(it: Exported, root: Path) -> dict[str, Any]:
    whole = it.gguf.read_bytes()
    (root / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    return {"model_path": root / "cut.gguf"}


def of_another_base(it: Exported, root: Path) -> dict[str, Any]:
    text = it.ggufs["LoRA of rank 8"].read_bytes()
    (root / "other.gguf").write_bytes(text.replace(b"blk.1.attn_q", b"blk.9.attn_q"))
    return {"model_path": it.gguf, "adapters": {"other": root / "other.gguf"}}


def no_gguf(it: Exported, root: Path) -> dict[str, Any]:
    (root / "text.gguf").write_text("text")
    return {"model_path": root / "text.gguf"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (cut, "cut.gguf: .*Export them again"),
        (of_another_base, "other.gguf: .*Export them again"),
        (no_gguf, "is no GGUF file"),
        (lambda it, root: {"model_path": root / "none.gguf"}, "none.gguf: cannot be read: No such file"),
        (lambda it, root: {"model_path": it.gguf, "llama_cpp_path": root}, "LLAMA_CPP_PATH=.*: no llama-server there"),
    ],
    ids=["cut", "another base", "text", "no file", "no llama-server"],
)
def test_what_cannot_be_started_is_one_line(
    one_export: Exported, tmp_path: Path, given: Callable[[Exported, Path], dict[str, Any]], said: str
) -> None:
    with pytest.raises(LlamaCppFailed, match=said) as failed:
        LlamaCppClient(**given(one_export, tmp_path), threads=1, context=256).start()
    assert "\n" not in str(failed.value)


def test_a_port_that_is_taken_is_named(one_export: Exported) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LlamaCppFailed, match=f"port {port} .*is taken.*Give another"):
            LlamaCppClient(one_export.gguf, port=port).start()


def test_without_llama_cpp_both_ways_to_it_are_told(one_export: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_server, "find_spec", lambda _: None)
    with pytest.raises(LlamaCppFailed, match=r"LLAMA_CPP_PATH.*rillfold\[llama-cpp\]"):
        LlamaCppClient(one_export.gguf).start()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for a llama-server that was built: its options are read, and xllamacpp answers."""
    place = tmp_path / "llama-server"
    place.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STANDS_IN}" "$@"\n')
    place.chmod(place.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("LLAMA_CPP_PATH", str(tmp_path))
    return place


def test_the_operators_llama_server_is_taken(one_export: Exported, running: LlamaCppClient, program: Path) -> None:
    assert from_env().llama_cpp_path == program.parent
    adapters = {"a": one_export.ggufs["LoRA of rank 8"]}
    with LlamaCppClient(one_export.gguf, adapters, threads=1, context=256) as client:
        theirs = client.chat(ASKED, adapter="a", max_tokens=6)
    ours = running.chat(ASKED, adapter="LoRA of rank 8", max_tokens=6)
    assert theirs["choices"] == ours["choices"]


@pytest.mark.parametrize("operators", [False, True], ids=["packaged", "the operator's"])
def test_in_float32_its_chances_are_ours(
    one_export: Exported, running: LlamaCppClient, operators: bool, request: pytest.FixtureRequest
) -> None:
    """Halves of keys and values alone, or of attention alone, and it fails."""
    if operators:
        request.getfixturevalue("program")
    prompt = one_export.chat.prompt((Message(role="user", content="Refund 3 euros to Ms Paris. " * 4),))
    with torch.inference_mode():
        ours = one_export.model(torch.tensor([prompt])).logits[0, -1].double()
    with LlamaCppClient(one_export.gguf, threads=1, context=256, float32=True) as client:
        assert _furthest(client, prompt, ours) < 1e-5 < 1e-4 < _furthest(running, prompt, ours)


def _furthest(client: LlamaCppClient, prompt: list[int], ours: torch.Tensor) -> float:
    """Of its likeliest, by how much one stands nearer to or further from another."""
    asked = {"prompt": prompt, "n_predict": 1, "n_probs": 20, "temperature": 0, "cache_prompt": False, "lora": []}
    answer = client.server.ask("POST", "/completion", asked)
    top = answer["completion_probabilities"][0]["top_logprobs"]
    apart = [each["logprob"] - float(ours[each["id"]]) for each in top]
    return max(apart) - min(apart)


def test_one_that_knows_no_adapters_per_question_is_too_old(one_export: Exported, program: Path) -> None:
    program.write_text("#!/bin/sh\necho 'error: invalid argument: --lora-init-without-apply' >&2; exit 1\n")
    with pytest.raises(LlamaCppFailed, match="is too old: error: invalid argument"):
        LlamaCppClient(one_export.gguf).start()
