"""`rillfold auto-lora`: what is missing is named with its remedy, and a file of tools is one or is refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from processors.synthetic.definition import EXAMPLE
from rillfold.cli.adapters.auto_lora import auto_lora
from rillfold.cli.terminal import live
from schemas.errors import RillfoldError
from tests.support.waiting import until


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """In a folder of its own; an error of ours is its line, as `main` says it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLAMA_CPP_PATH", raising=False)

    def command(*arguments: str) -> Result:
        result = CliRunner().invoke(auto_lora, arguments)
        if result.exception and not isinstance(result.exception, SystemExit | RillfoldError | click.ClickException):
            raise result.exception
        return result

    return command


def test_a_machine_that_has_everything_is_told_so_and_one_that_does_not_what_to_do(said, monkeypatch, tiny_base):
    there = json.loads(said("--check", "--model-path", str(tiny_base), "--json").output)
    whats = [each["what"] for each in there["findings"]]
    assert there["ok"] and whats == ["Python", "Packages", "CUDA", "Memory", "Disk", "llama.cpp", "Base model"]
    monkeypatch.setenv("LLAMA_CPP_PATH", "/nowhere")
    missing = said("--check", "--model-path", "/no/model")
    assert missing.exit_code == 1
    assert "LLAMA_CPP_PATH='/nowhere' has no llama-server. Name the folder" in missing.output
    assert "problem Base model" in missing.output and "Name another with --model-path." in missing.output


def test_a_package_that_is_absent_is_named(said, monkeypatch, tiny_base):
    monkeypatch.setattr("rillfold.auto_lora.dependencies.is_installed", lambda name: name != "peft")
    missing = said("--check", "--model-path", str(tiny_base))
    assert missing.exit_code == 1 and "peft not installed. Run `make`" in missing.output


def test_an_example_is_a_file_that_trains_and_is_not_written_over(said):
    assert "--train --tools tools.json" in said("--example", "tools.json").output
    assert json.loads(Path("tools.json").read_text()) == [EXAMPLE]
    again = said("--example", "tools.json")
    assert "not written: File exists" in str(again.exception)


REFUSED = {
    "no file": (None, "No tools were named: --tools FILE"),
    "no list": ("{}", "no list of tools in UTF-8: Expected `array`"),
    "no JSON": ("[", "no list of tools"),
    "Latin-1": (b'[{"name": "caf\xe9"}]', "no list of tools in UTF-8"),
    "an unknown word": ('[{"name": "a", "arguments": {}}]', "unknown field `arguments`"),
    "as Windows saves it": ("\ufeff[]", "There is no tool"),
    "nothing in it": ("[]", "There is no tool"),
    "no parameters": ('[{"name": "a"}]', "'a' has no parameters"),
}


def test_a_file_of_tools_that_is_not_there_is_not_called_malformed(said):
    refused = said("--train", "--tools", "typo.json")
    assert "typo.json cannot be read: No such file or directory." in str(refused.exception)


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_holds_no_tools_is_refused_in_one_line(said, name):
    content, expected = REFUSED[name]
    if content is not None:
        Path("tools.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused = said("--train", *(() if content is None else ("--tools", "tools.json")))
    assert expected in str(refused.exception) and "\n" not in str(refused.exception)
    assert not Path("lora_adapters").exists()


@pytest.mark.parametrize("option", ["--judge", "--writer"])
def test_what_is_no_address_of_a_model_is_refused_before_anything_is_made(said, option):
    Path("tools.json").write_text(json.dumps([EXAMPLE]))
    refused = said("--train", "--tools", "tools.json", option, "nonsense")
    assert "that is no address. Give one like http://127.0.0.1:8000." in str(refused.exception)
    assert not Path("lora_adapters").exists()


def test_neither_check_nor_train_is_a_question_back(said):
    asked = said()
    assert asked.exit_code == 2 and "Say --check, --train or both" in asked.output


def test_a_pipe_hears_now_and_then_that_it_goes_on(capsys, monkeypatch):
    monkeypatch.setattr(live, "SILENCE", 0.05)
    with live.phases(piped=True) as tell:
        until("a first line", lambda: "… at work, 0 s so far\n" in said_so_far(capsys), 10, pause=0.02)
        tell("iteration 1: train", 3, 60, "loss 0.500")
        until("news", lambda: "… iteration 1: train 3/60, loss 0.500, " in said_so_far(capsys), 10, pause=0.02)
    with live.phases() as tell:
        tell("export", 1, 2, "")
    assert not [each for each in threading.enumerate() if each.name == "signs-of-life"]


def said_so_far(capsys) -> str:
    return capsys.readouterr().err
