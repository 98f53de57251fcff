"""What names a base model, where it is found, and who is refused by it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from huggingface_hub import constants

from gpu_workers.bases import files
from gpu_workers.bases import load as base_model
from gpu_workers.bases.device import Device
from gpu_workers.bases.files import BaseIdentity, check_folder, find, folder_sha256, name_of
from gpu_workers.errors import BaseModelMissing, BaseModelRefused, BaseNotServable
from gpu_workers.refused import BaseMismatch
from gpu_workers.serve.engines.pending import untold_calls
from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.port import AdapterKey, AdapterSpec, Failure, MustCall, Question, Snippet
from gpu_workers.train.place import Workplace
from processors.answers import BARE, ToolCalls, parse
from processors.training.admit import NotAdmitted
from schemas.company import Message
from tests.support.models import ALL, save_adapter
from tests.support.tongues import Speaker

CPU = Device("cpu", "float32", 1)


@pytest.fixture
def copied(speakers: dict[str, Speaker], tmp_path: Path) -> Path:
    return Path(shutil.copytree(speakers["llama3"].folder, tmp_path / "copy"))


def identity(folder: Path) -> BaseIdentity:
    return base_model.identify("it", folder, CPU)


def altered(file: Path, **members: Any) -> None:
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | members))


ALTERED: dict[str, Callable[[Path], None]] = {
    "positions": lambda at: altered(at / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 5.0}),
    "special tokens": lambda at: altered(at / "tokenizer_config.json", eos_token="<|eom_id|>"),
    "end tokens": lambda at: altered(at / "generation_config.json", eos_token_id=[4, 5]),
    "template": lambda at: altered(at / "tokenizer_config.json", chat_template="{{ messages }}"),
    "template file": lambda at: (at / "chat_template.jinja").write_text("{{ messages }}") and None,
}


@pytest.mark.parametrize("what", sorted(ALTERED))
def test_all_that_decides_what_it_says_is_in_its_name(copied: Path, what: str) -> None:
    before = identity(copied)
    ALTERED[what](copied)
    after = identity(copied)
    assert after.sha256 != before.sha256 and after.weights_sha256 == before.weights_sha256 == folder_sha256(copied)
    assert (after.template_sha256 != before.template_sha256) == what.startswith("template")


def test_neither_its_folder_nor_the_library_that_wrote_it_is_in_its_name(copied: Path, tmp_path: Path) -> None:
    before = identity(copied)
    moved = copied.rename(tmp_path / "moved")
    altered(moved / "config.json", transformers_version="9.0.0", _name_or_path="/elsewhere")
    altered(moved / "tokenizer_config.json", name_or_path="/elsewhere", is_local=True)
    assert identity(moved) == before


def test_a_base_in_four_bits_is_another_and_older_runs_know_it_by_its_older_name(copied: Path) -> None:
    whole, four = identity(copied), identity(copied).quantised()
    assert four.name == "it-nf4" and four.quantisation == "nf4"
    assert len({whole.sha256, whole.weights_sha256, four.sha256, four.weights_sha256}) == 4
    for rule in (1, 2):
        assert whole.as_known_to(rule).sha256 == whole.weights_sha256
        assert four.as_known_to(rule).sha256 == four.weights_sha256
    assert whole.as_known_to(3) == whole


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The client reads its environment once, as it is imported."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    return tmp_path / "hf" / "hub"


@pytest.mark.parametrize(
    "says, at",
    [
        ({"HF_HOME": "/a", "HF_HUB_CACHE": "/b", "XDG_CACHE_HOME": "/c"}, "/b"),
        ({"HF_HOME": "/a", "XDG_CACHE_HOME": "/c"}, "/a/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
    ],
)
def test_the_cache_is_where_its_client_has_it(says: dict[str, str], at: str) -> None:
    code = "from gpu_workers.bases.hub import cache; print(cache())"
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **says}
    assert subprocess.check_output([sys.executable, "-c", code], env=environ, text=True).strip() == at


def test_a_hub_id_is_found_in_the_local_cache_as_its_client_lays_it_out(copied: Path, hub: Path) -> None:
    model = hub / "models--org--some-model"
    blobs, snapshot = model / "blobs", model / "snapshots" / ("c0ffee" + "0" * 34)
    snapshot.mkdir(parents=True)
    copied.rename(blobs)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(blob)
    (model / "refs").mkdir()
    with pytest.raises(BaseModelMissing, match=r"hf download org/some-model"):
        find("org/some-model")
    (model / "refs" / "main").write_text(snapshot.name)
    assert find("org/some-model") == snapshot and name_of("org/some-model") == "some-model"
    _, _, loaded = base_model.load("org/some-model", hub, CPU)
    assert loaded.name == "some-model" and loaded.sha256 == identity(snapshot).sha256


@pytest.mark.parametrize("id_", ["../..", "org/..", "org/a/b", "/org", "org/", "org/" + "x" * 5000, "org/\0", "örg/x"])
def test_what_is_no_hub_id_is_looked_up_nowhere(hub: Path, id_: str) -> None:
    (hub / "models--..--..").mkdir(parents=True)
    with pytest.raises(BaseModelMissing):
        find(id_)


def test_a_ref_leads_nowhere_but_to_a_snapshot(hub: Path, copied: Path) -> None:
    refs = hub / "models--org--x" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(f"../../../../{copied.name}")
    with pytest.raises(BaseModelMissing):
        find("org/x")


NOT_SERVED = {
    "gpt2": {"model_type": "gpt2"},
    "qwen3_moe": {"model_type": "qwen3_moe"},
    "gptq": {"quantization_config": {"quant_method": "gptq"}},
    "gelu": {"hidden_act": "gelu"},
    "sliding": {"use_sliding_window": True},
    "longrope": {"rope_parameters": {"rope_type": "longrope"}},
    "dynamic": {"rope_parameters": None, "rope_scaling": {"type": "dynamic"}},
}


@pytest.mark.parametrize("word", sorted(NOT_SERVED))
def test_what_the_engine_would_compute_wrongly_is_refused_before_it_is_trained(copied: Path, word: str) -> None:
    altered(copied / "config.json", **NOT_SERVED[word])
    family = json.loads((copied / "config.json").read_text())["model_type"]
    with pytest.raises(BaseNotServable, match=f"{family}.*supported|{family}.*{word}"):
        check_folder(copied)
    place = Workplace(worker="w", scratch=copied, cache=copied, threads=1, clock=lambda: 1, bases={"mine": str(copied)})
    why = place.why_missing("mine")
    assert isinstance(why, NotAdmitted) and why.reason == "base_not_servable"
    assert family in why.detail and str(copied) not in why.detail


def test_weights_of_which_a_part_was_not_copied_are_named(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    altered(copied / "model.safetensors.index.json", weight_map=parts)
    with pytest.raises(BaseModelRefused, match="model-00002-of-00002"):
        check_folder(copied)


def test_a_packaged_model_that_was_converted_by_an_older_release_is_the_same(copied: Path) -> None:
    """Its cache is by the hash of the packaged file; a conversion written by another library names itself otherwise."""
    before = identity(copied)
    altered(copied / "config.json", torch_dtype="float32", transformers_version="4.0.0")
    assert identity(copied) == before
    assert files.RULE_OF_WHOLE_IDENTITY == 3


async def test_an_adapter_is_served_by_either_name_of_its_base_and_never_across_bits(
    speakers: dict[str, Speaker], tmp_path: Path
) -> None:
    speaker = speakers["qwen3-instruct"]
    named = identity(speaker.folder)
    folder = save_adapter(speaker.model, tmp_path / "adapter", 3, r=4, target_modules=ALL)
    spec = AdapterSpec(key=AdapterKey("acme/ops", 1), folder=folder, base_sha256=named.sha256)
    async with embedded(str(speaker.folder), tmp_path, EngineSetup(CPU)) as engine:
        assert engine.base_sha256 == named.sha256
        for sha256 in (named.sha256, named.weights_sha256):
            await engine.load(msgspec.structs.replace(spec, base_sha256=sha256))
        for sha256 in (named.quantised().sha256, named.quantised().weights_sha256):
            with pytest.raises(BaseMismatch, match=r"-nf4.*four bits.*float32"):
                await engine.load(msgspec.structs.replace(spec, base_sha256=sha256))
        with pytest.raises(BaseMismatch, match="f" * 64):
            await engine.load(msgspec.structs.replace(spec, base_sha256="f" * 64))


TOOL = json.dumps([{"name": "pay", "parameters": {"type": "object", "properties": {"paid": {"type": "boolean"}}}}])


@pytest.mark.parametrize("name", ["llama3", "qwen3"])
async def test_a_call_that_is_held_to_its_form_goes_out_as_the_log_has_it(
    speakers: dict[str, Speaker], name: str, tmp_path: Path
) -> None:
    heard: list[str] = []
    asked = (Message(role="user", content="Pay."),)
    question = Question(id="q", messages=asked, tools=TOOL, max_tokens=200, must=MustCall())
    async with embedded(str(speakers[name].folder), tmp_path, EngineSetup(CPU)) as engine:
        answer = await engine.answer(question, lambda piece: heard.append(piece.text))
    if isinstance(answer, Failure):  # its tag is a token, which the grammar's library may not take as it spells it
        assert name == "qwen3" and answer.reason == "bad_question" and "tokens cannot be held" in answer.detail
        return
    assert answer.finish_reason == "stop" and [call.name for call in answer.calls] == ["pay"]
    assert parse(answer.text) == ToolCalls(answer.calls, "")
    assert "".join(heard) == ("" if name == "llama3" else answer.text)


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        (["Hel", "lo."], ["Hel", "lo."]),
        (["  ", "He", "llo"], ["", "  He", "llo"]),
        (["<|", "pyt", "hs", "!"], ["", "", "<|pyths", "!"]),
        (['{"na', 'me": 1', "}"], ["", "", ""]),
        (["<|python_tag|>", "x"], ["", ""]),
    ],
)
def test_who_reads_along_is_told_no_bare_call_and_every_other_word(pieces: list[str], told: list[str]) -> None:
    heard: list[str] = []
    hear = untold_calls(lambda piece: heard.append(piece.text), BARE)
    for piece in pieces:
        hear(Snippet(piece))
    assert heard == told
