"""Files that are no adapter, and artifacts in a folder: refused with the part that is wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from gpu_workers.adapters.check import CONFIG, TENSORS, check_adapter, check_tensors
from gpu_workers.adapters.store import Facts, FolderStore, verify
from gpu_workers.adapters.weights import read_adapter
from gpu_workers.errors import ArtifactRefused
from gpu_workers.refused import UnusableAdapter
from tests.support.laid import FACTS, MODULE, lay, matrices


@pytest.fixture
def store(tmp_path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def facts_of(store: FolderStore, sha256: str) -> Facts:
    return verify(store.place(sha256), sha256)


def test_a_file_more_or_less_is_refused(store, tmp_path):
    folder = store.place(sha256 := store.put(lay(tmp_path / "made"), FACTS))
    (folder / "evil.py").write_text("boo")
    with pytest.raises(ArtifactRefused, match=r"evil\.py"):
        facts_of(store, sha256)
    (folder / "evil.py").unlink()
    (folder / CONFIG).unlink()
    with pytest.raises(ArtifactRefused, match="not exactly"):
        facts_of(store, sha256)


def test_a_link_is_not_a_file(store, tmp_path):
    folder = store.place(sha256 := store.put(lay(tmp_path / "made"), FACTS))
    (folder / TENSORS).rename(tmp_path / "elsewhere")
    (folder / TENSORS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactRefused, match="not exactly"):
        facts_of(store, sha256)


WRITER = """
import sys
from pathlib import Path
from gpu_workers.adapters.store import Facts, FolderStore
facts = Facts(company="acme", base_model="tiny", base_sha256="0" * 64, tools_in_prompt=False)
for _ in range(20):
    print(FolderStore(Path(sys.argv[1])).put(Path(sys.argv[2]), facts))
"""


def test_many_writers_of_one_adapter_leave_one_whole_adapter(store, tmp_path):
    source = lay(tmp_path / "made")
    root = tmp_path / "store"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, root, source], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = {line for writer in writers for line in writer.communicate()[0].split()}
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    (sha256,) = said
    assert facts_of(store, sha256) == FACTS
    assert [entry.name for entry in (root / "sha256").iterdir()] == [sha256]


def bad_tensors() -> dict[str, dict[str, np.ndarray]]:
    infinite = matrices()
    infinite[f"{MODULE}.lora_A.weight"][1, 3] = np.inf
    unknown = matrices()
    unknown[f"{MODULE}.lora_A.weight"][0, 0] = np.nan
    return {
        "that are not finite": infinite,
        "are not finite": unknown,
        "rank 65": matrices(65),
        "has no place": {**matrices(), "base_model.model.lm_head.weight": np.ones((2, 2), np.float32)},
        "type I64": {name: tensor.astype(np.int64) for name, tensor in matrices().items()},
        "has no base_model": {f"{MODULE}.lora_A.weight": np.ones((2, 8), np.float32)},
    }


@pytest.mark.parametrize("words", list(bad_tensors()))
def test_tensors_that_no_adapter_has_are_refused(store, tmp_path, words):
    with pytest.raises(ArtifactRefused, match=words):
        store.put(lay(tmp_path / "made", bad_tensors()[words]), FACTS)
    assert not (tmp_path / "store").exists()


def test_infinite_half_precision_numbers_are_refused(tmp_path):
    tensors = matrices(dtype=np.float16)
    path = tmp_path / TENSORS
    save_file(tensors, path)
    check_tensors(path)
    tensors[f"{MODULE}.lora_B.weight"][0, 0] = np.float16(np.inf)
    save_file(tensors, path)
    with pytest.raises(ArtifactRefused, match="not finite"):
        check_tensors(path)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 16,
        (10).to_bytes(8, "little") + b"not json!!",
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
    ],
)
def test_files_that_are_no_safetensors_are_refused(tmp_path, body):
    path = tmp_path / TENSORS
    path.write_bytes(body)
    with pytest.raises(ArtifactRefused, match=r"header|tensors"):
        check_tensors(path)


def test_overlapping_and_hidden_bytes_are_refused(tmp_path):
    path = tmp_path / TENSORS
    save_file(matrices(), path)
    whole = path.read_bytes()
    path.write_bytes(whole + b"hidden")
    with pytest.raises(ArtifactRefused, match="belong to no tensor"):
        check_tensors(path)
    path.write_bytes(whole.replace(b"[64,128]", b"[0,  64]"))
    with pytest.raises(ArtifactRefused, match="begins at 0"):
        check_tensors(path)


UNUSABLE_CONFIGS = [
    {"peft_type": "ADALORA"},
    {"peft_type": ["LORA"]},
    *({"r": value} for value in (0, 65, -1, "2", None, True, [2], 2.0)),
    *({"lora_alpha": value} for value in (0, -1, "4", None, [4], True, float("nan"), float("inf"), 10**400)),
    *({"rank_pattern": value} for value in ({"q_proj": 0}, {"q_proj": "2"}, {"(": 2}, {"(a+)+b": 2}, ["q_proj"], "q")),
    *({"alpha_pattern": value} for value in ({"q_proj": float("nan")}, {"(": 2}, {".*": 2}, {"q_proj": [4]}, 3)),
    {"rank_pattern": {f"m{i}": 2 for i in range(2_000)}},
    *({"target_modules": value} for value in (None, [], ["v_proj"], ".*", "all-linear", [".*"], [3])),
    {"exclude_modules": ["q_proj"]},
    *({"layers_to_transform": value} for value in ([1], 1, "0", [True])),
    {"layers_pattern": ".*"},
    {"use_rslora": "yes"},
    {"use_dora": True},
    {"bias": "all"},
    {"init_lora_weights": "pissa"},
    {"a_setting_of_tomorrow": 1},
    {"auto_mapping": {"base_model_class": "os"}},
    {"modules_to_save": ["lm_head"]},
    "[" * 100_000,
    "[]",
    "no json",
    '{"peft_type": "LORA", "r": 2, "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}',
    json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "task_type": "x" * 2**20}),
]


@pytest.mark.parametrize("config", UNUSABLE_CONFIGS, ids=lambda config: str(config)[:40])
def test_configurations_that_no_adapter_can_be_served_with_are_refused_by_store_and_engine(store, tmp_path, config):
    folder = lay(tmp_path / "made", config=config)
    with pytest.raises(ArtifactRefused):
        store.put(folder, FACTS)
    with pytest.raises(UnusableAdapter):
        read_adapter(folder)


def test_dora_is_refused_with_the_remedy_when_it_is_put(store, tmp_path):
    with pytest.raises(ArtifactRefused, match=r"use_dora, which is not computed here\. Train it"):
        store.put(lay(tmp_path / "made", config={"use_dora": True}), FACTS)
    assert not (tmp_path / "store").exists()


def test_patterns_and_layers_that_are_plain_names_are_taken(tmp_path):
    config = {"rank_pattern": {"q_proj": 2}, "r": 4, "alpha_pattern": {"self_attn.q_proj": 8}, "layers_to_transform": 0}
    assert check_adapter(lay(tmp_path / "made", config=config)).scale_of("model.layers.0.self_attn.q_proj") == 4


def test_a_tensor_that_stands_twice_or_lies_deep_is_refused(tmp_path):
    path = tmp_path / TENSORS
    for header in (b'{"a": {}, "a": {}}', b"[" * 100_000):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(ArtifactRefused, match="header"):
            check_tensors(path)


def test_an_artifact_is_of_the_company_that_its_manifest_names(store, tmp_path):
    sha256 = store.put(lay(tmp_path / "a"), FACTS)
    assert verify(store.place(sha256), sha256, "acme") == FACTS
    with pytest.raises(ArtifactRefused, match="is of acme, not of globex"):
        verify(store.place(sha256), sha256, "globex")
