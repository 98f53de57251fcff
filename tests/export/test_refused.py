"""What would be another adapter, or another base, in the file: refused by name, and no file stands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.serve.kinds import broken
from gpu_workers.adapters.store import CONFIG, TENSORS, Facts, FolderStore
from gpu_workers.bases import tiny
from gpu_workers.errors import ArtifactRefused, ExportRefused
from gpu_workers.export.adapter import AdapterOrigin, export_gguf, export_peft
from gpu_workers.export.base_model import export_base
from schemas.errors import Stop
from tests.export.conftest import TEXTS, Exported


def told(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


def renamed(folder: Path) -> None:
    """Its layer 1 is one that the base does not have."""
    tensors = load_file(folder / TENSORS)
    save_file({name.replace("layers.1.", "layers.7."): each for name, each in tensors.items()}, folder / TENSORS)


def widened(folder: Path) -> None:
    tensors = load_file(folder / TENSORS)
    name = next(each for each in sorted(tensors) if each.endswith("lora_A.weight"))
    save_file(tensors | {name: torch.ones(tensors[name].shape[0], 80)}, folder / TENSORS)


def overflowing(folder: Path) -> None:
    """Finite as it lies there, and not with its singular values in it."""
    tensors = load_file(folder / TENSORS)
    save_file({name: torch.full_like(each, 3e38) for name, each in tensors.items()}, folder / TENSORS)


@pytest.mark.parametrize(
    ("kind", "spoil", "said"),
    [
        ("LoRA of rank 8", lambda folder: told(folder, use_dora=True), "use_dora"),
        ("LoRA of rank 8", renamed, "layers.7.* has no place in this base model"),
        ("LoRA of rank 8", widened, "no place in this base model"),
        ("LoRA of rank 8", broken, "not finite"),
        ("AdaLoRA", overflowing, "not finite"),
        ("LoRA of rank 8", lambda folder: told(folder, alora_invocation_tokens=[1]), "one token alone"),
        ("LoRA of rank 8", lambda folder: told(folder, alora_invocation_tokens=[1, 9999]), "token 9999"),
        ("LoRA of rank 8", lambda folder: (folder / TENSORS).unlink(), "has no adapter_model.safetensors"),
    ],
    ids=["dora", "no such module", "another shape", "nan", "overflow", "one token", "no such token", "half"],
)
def test_an_adapter_that_cannot_be_exported(
    one_export: Exported, tmp_path: Path, kind: str, spoil: Callable[[Path], object], said: str
) -> None:
    folder = shutil.copytree(one_export.adapters[kind], tmp_path / "adapter")
    spoil(folder)
    out = tmp_path / "out" / "adapter.gguf"
    with pytest.raises((ExportRefused, ArtifactRefused), match=said) as refused:
        export_gguf(folder, one_export.base, out)
    assert str(tmp_path) in str(refused.value), "it names the place"
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_only_the_base_that_it_was_trained_on_or_the_one_in_four_bits_by_name(
    one_export: Exported, tmp_path: Path
) -> None:
    base, folder = one_export.base, one_export.adapters["LoRA of rank 8"]
    store, out = FolderStore(tmp_path / "store"), tmp_path / "adapter.gguf"

    def put(base_sha256: str) -> Path:
        facts = Facts(company="acme", base_model="b", base_sha256=base_sha256, tools_in_prompt=True)
        return store.place(store.put(folder, facts))

    own, four = put(base.identity.sha256), put(base.identity.quantised().sha256)
    assert export_gguf(own, base, out).is_file()
    with pytest.raises(ExportRefused, match="was trained on base 0000"):
        export_gguf(put("0" * 64), base._replace(named=True), out)
    with pytest.raises(ExportRefused, match=r"held in four bits.*--base"):
        export_gguf(four, base, out)
    assert export_gguf(four, base._replace(named=True), out).is_file()


def test_where_it_comes_from_stands_in_keys_of_our_own(one_export: Exported, tmp_path: Path) -> None:
    identity, folder = one_export.identity, one_export.adapters["activated LoRA"]
    facts = Facts(company="acme", base_model="b", base_sha256=identity.sha256, tools_in_prompt=True)
    sha256 = (store := FolderStore(tmp_path / "store")).put(folder, facts)
    origin = AdapterOrigin("acme/default@3", "f" * 64)
    file = export_gguf(store.place(sha256), one_export.base, tmp_path / "a.gguf", origin)
    fields = {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}
    assert fields["rillfold.adapter.sha256"] == sha256
    assert fields["rillfold.dataset.sha256"] == "f" * 64
    assert fields["rillfold.base.sha256"] == identity.sha256
    assert fields["general.name"] == "acme/default@3"
    trigger = fields["rillfold.adapter.invocation_tokens"]
    assert (
        trigger[1:] == fields["adapter.alora.invocation_tokens"]
        and trigger[0] == one_export.chat.specials["<|im_start|>"]
    )


def test_peft_gets_the_very_bytes_and_no_folder_of_another_adapter(one_export: Exported, tmp_path: Path) -> None:
    identity, folder = one_export.identity, one_export.adapters["AdaLoRA"]
    facts = Facts(company="acme", base_model="b", base_sha256=identity.sha256, tools_in_prompt=True)
    sha256 = (store := FolderStore(tmp_path / "store")).put(folder, facts)
    out = tmp_path / "out"
    written = export_peft(store.place(sha256), out)
    assert export_peft(store.place(sha256), out) == written, "again is the same"
    for name in (CONFIG, TENSORS, "manifest.json"):
        assert (out / name).read_bytes() == (store.place(sha256) / name).read_bytes()
    assert export_gguf(out, one_export.base, tmp_path / "a.gguf").read_bytes() == (
        export_gguf(store.place(sha256), one_export.base, tmp_path / "b.gguf").read_bytes()
    )
    with pytest.raises(ExportRefused, match="of another adapter"):
        export_peft(one_export.adapters["LoRA of rank 8"], out)
    (out / TENSORS).write_bytes(b"altered")
    with pytest.raises(ArtifactRefused, match="was altered"):
        export_gguf(out, one_export.base, tmp_path / "c.gguf")
    assert not (tmp_path / "c.gguf").exists()


def changed(folder: Path, name: str, change: Callable[[Any], None]) -> None:
    value = msgspec.json.decode((folder / name).read_bytes())
    change(value)
    (folder / name).write_bytes(msgspec.json.encode(value))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda base: changed(base, "tokenizer.json", lambda it: it.update(pre_tokenizer={"type": "Whitespace"})),
            "cuts text in a way that has no name here",
        ),
        (
            lambda base: changed(base, "tokenizer.json", lambda it: it.update(normalizer={"type": "Lowercase"})),
            "changes text by Lowercase",
        ),
        (lambda base: changed(base, "config.json", lambda it: it.update(vocab_size=200)), "rows"),
        (
            lambda base: save_file(
                {name: each * float("nan") for name, each in load_file(base / "model.safetensors").items()},
                base / "model.safetensors",
            ),
            "not finite",
        ),
    ],
    ids=["cuts otherwise", "lowers letters", "too many tokens", "nan"],
)
def test_a_base_that_cannot_be_exported(tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    base = tiny.make(tmp_path / "base", TEXTS)
    spoil(base)
    (tmp_path / "out").mkdir()
    with pytest.raises(Stop, match=said):
        export_base(str(base), tmp_path, tmp_path / "out" / "base.gguf")
    assert not list((tmp_path / "out").iterdir())


def test_a_disk_that_takes_nothing_leaves_nothing(one_export: Exported, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ExportRefused, match=r"cannot be written.*Give a folder"):
        export_gguf(one_export.adapters["AdaLoRA"], one_export.base, tmp_path / "out" / "a.gguf")
