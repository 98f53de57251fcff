"""Folders as PEFT saves them, folded into plain pairs: the model's numbers are those of PEFT's own model."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from gpu_workers.adapters.store import CONFIG, TENSORS, Facts, FolderStore
from gpu_workers.adapters.weights import LoraWeights, read_adapter
from gpu_workers.errors import ArtifactRefused
from gpu_workers.refused import UnusableAdapter
from tests.support.models import ALL, VOCABULARY, Zoo, save_adapter, tiny

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")

FACTS = Facts(company="acme", base_model="tiny", base_sha256="0" * 64, tools_in_prompt=False)
PLAN = {"task_type": "CAUSAL_LM", "init_r": 6, "target_r": 3, "total_step": 20, "tinit": 2, "tfinal": 3}
ADALORA: dict[str, dict[str, Any]] = {
    "all": {"lora_alpha": 16, "target_modules": ALL},
    "some": {"lora_alpha": 4, "target_modules": ["q_proj", "down_proj"]},
    "one layer": {"lora_alpha": 32, "target_modules": ["o_proj"], "layers_to_transform": [1]},
    "of rank 1": {"lora_alpha": 8, "target_modules": ALL, "init_r": 1, "target_r": 1},
    "settings that PEFT does not heed": {
        "lora_alpha": 24,
        "target_modules": ALL,
        "use_rslora": True,
        "r": 3,
        "alpha_pattern": {"q_proj": 99},
    },
}
LORA: dict[str, dict[str, Any]] = {
    "rank-stabilised": {"r": 12, "lora_alpha": 8, "use_rslora": True, "target_modules": ALL},
    "by patterns": {
        "r": 4,
        "lora_alpha": 8,
        "use_rslora": True,
        "target_modules": ["q_proj", "up_proj", "down_proj"],
        "rank_pattern": {"layers.0.self_attn.q_proj": 12, "down_proj": 2},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 64, "up_proj": 24},
    },
    "activated": {"r": 4, "lora_alpha": 8, "target_modules": ALL, "alora_invocation_tokens": [5, 9]},
}


def adalora(base: Any, seed: int, **config: Any) -> Any:
    """Nothing in it is zero: singular values and vectors by dice."""
    model: Any = peft.get_peft_model(copy.deepcopy(base), peft.AdaLoraConfig(**(PLAN | config)))
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=dice) * 0.4)
    return model


def prune(model: Any, kept: Mapping[str, Sequence[bool]]) -> None:
    """As its rank allocator does: masked in memory, left out when it is saved."""
    with torch.no_grad():
        for module, mask in kept.items():
            model.get_submodule(f"base_model.model.{module}").lora_E["default"][~torch.tensor(mask)] = 0.0
    model.peft_config["default"].rank_pattern = {
        f"{module}.lora_E.default": list(mask) for module, mask in kept.items()
    }


def trained(base: Any) -> Any:
    """By PEFT's own allocator, which leaves some modules nothing."""
    model = adalora(base, 3, lora_alpha=16, target_modules=ALL, target_r=1, orth_reg_weight=0.1)
    steps = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], 1e-2)
    ids = torch.randint(0, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(1))
    for step in range(PLAN["total_step"]):  # type: ignore[call-overload]
        model(input_ids=ids, labels=ids).loss.backward()
        steps.step()
        model.base_model.update_and_allocate(step)
        steps.zero_grad()
    return model


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def ours(base: Any, weights: LoraWeights, ids: torch.Tensor) -> torch.Tensor:
    """The base's own forward, with the pairs added where they belong."""
    model = copy.deepcopy(base)
    for name, (a, b) in weights.pairs.items():
        model.get_submodule(name).register_forward_hook(lambda _, x, out, a=a, b=b: out + x[0] @ a.T @ b.T)
    with torch.inference_mode():
        logits: torch.Tensor = model(ids).logits
    return logits


def same_as_peft(base: Any, folder: Path, prompt: Sequence[int] | None = None) -> LoraWeights:
    """Through both doors: what the store takes, the engine reads, and both mean PEFT's numbers."""
    FolderStore(folder.parent / "store").put(folder, FACTS)
    weights = read_adapter(folder)
    dice = random.Random(4)
    ids = torch.tensor([prompt or [dice.randrange(VOCABULARY) for _ in range(30)]])
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()
    with torch.inference_mode():
        expected = theirs(input_ids=ids).logits
        assert (expected - base(ids).logits).abs().max() > 1e-2, "else it does nothing"
    # In float32 the order of sums shows: by how much depends on the processor's own width.
    assert (ours(base, weights, ids) - expected).abs().max() <= 3e-5 * expected.abs().max()
    return weights


@pytest.mark.parametrize("shape", ADALORA)
def test_adalora_is_what_peft_makes_of_it(zoo: Zoo, tmp_path: Path, shape: str) -> None:
    weights = same_as_peft(zoo.base, saved(adalora(zoo.base, 1, **ADALORA[shape]), tmp_path / "made"))
    assert weights.rank == ADALORA[shape].get("init_r", 6) and weights.activation is None


@pytest.mark.parametrize("again", [False, True], ids=["as it is saved", "loaded and saved again"])
def test_pruned_adalora_is_divided_by_its_first_rank(zoo: Zoo, tmp_path: Path, again: bool) -> None:
    model = adalora(zoo.base, 2, lora_alpha=16, target_modules=ALL)
    layer = "model.layers.0.self_attn"
    prune(model, {f"{layer}.q_proj": [True, False] * 3, f"{layer}.k_proj": [False] * 6, f"{layer}.v_proj": [True] * 6})
    folder = saved(model, tmp_path / "made")
    if again:
        resized: Any = peft.PeftModel.from_pretrained(copy.deepcopy(zoo.base), folder)
        folder = saved(resized, tmp_path / "again")
    weights = same_as_peft(zoo.base, folder)
    assert weights.pairs[f"{layer}.q_proj"][0].shape[0] == 3 and f"{layer}.k_proj" not in weights.pairs


def test_adalora_that_peft_pruned_is_what_peft_makes_of_it(zoo: Zoo, tmp_path: Path) -> None:
    weights = same_as_peft(zoo.base, saved(trained(zoo.base), tmp_path / "made"))
    assert 0 < len(weights.pairs) < 14, "else nothing was pruned whole"


@pytest.mark.parametrize("shape", LORA)
def test_lora_is_what_peft_makes_of_it(zoo: Zoo, tmp_path: Path, shape: str) -> None:
    """An activated one from its trigger on, so a prompt that begins with that is all of it."""
    folder = save_adapter(zoo.base, tmp_path / "made", 6, **LORA[shape])
    weights = same_as_peft(zoo.base, folder, [5, 9, 30, 2, 77, 41])
    assert weights.activation == ((5, 9) if shape == "activated" else None)


def change(folder: Path, **config: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


def refused(folder: Path, words: str) -> None:
    with pytest.raises(ArtifactRefused, match=words):
        FolderStore(folder.parent / "store").put(folder, FACTS)
    with pytest.raises(UnusableAdapter, match=words):
        read_adapter(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each kind, to be altered in copies."""
    root, base = tmp_path_factory.mktemp("made"), tiny("llama")
    for name, kept in (("pruned", {0: [True] * 4 + [False] * 2}), ("nothing", dict.fromkeys((0, 1), [False] * 6))):
        model = adalora(base, 2, lora_alpha=16, target_modules=["q_proj"])
        prune(model, {f"model.layers.{i}.self_attn.q_proj": mask for i, mask in kept.items()})
        saved(model, root / name)
    save_adapter(base, root / "plain", 6, r=6, lora_alpha=8, target_modules=["q_proj"])
    save_adapter(base, root / "activated", 6, **LORA["activated"])
    return root


@pytest.fixture
def pruned(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "pruned", tmp_path / "pruned"))


@pytest.fixture
def activated(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "activated", tmp_path / "activated"))


Q = "model.layers.0.self_attn.q_proj.lora_E"


@pytest.mark.parametrize(
    "pattern",
    [
        {Q: [True] * 5},
        {Q: [True] * 3 + [False] * 3},
        {Q: [2] * 2 + [0] * 4},
        {Q: ["1"] * 4 + ["0"] * 2},
        {Q: [1.0] * 4 + [0.0] * 2},
        *(
            {Q: value}
            for value in (3, -1, 7, 10**400, 4.0, "4", True, None, float("nan"), [[True]], {}, [True] * 1_000)
        ),
        {Q.replace("q_proj", "k_proj"): [True] * 4 + [False] * 2},
        {Q.replace("layers.0", "layers.1"): [True] * 4 + [False] * 2},
        {Q.removesuffix(".lora_E"): [True] * 4 + [False] * 2},
        {"lora_E": 4},
        {".lora_E": 4},
        {"(": 4},
        {},
        [Q],
        "q_proj",
        None,
    ],
    ids=lambda pattern: str(pattern)[:60],
)
def test_a_rank_pattern_that_is_not_of_its_tensors_is_refused(pruned: Path, pattern: object) -> None:
    change(pruned, rank_pattern=pattern)
    refused(pruned, "rank|configuration")


@pytest.mark.parametrize("kept", [[1, 1, 1, 1, 0, 0], [0, True, 1, 1, False, 1], 4], ids=str)
def test_a_rank_pattern_may_count(pruned: Path, kept: object) -> None:
    change(pruned, rank_pattern={Q: kept})
    assert read_adapter(pruned).pairs[Q.removesuffix(".lora_E")][0].shape[0] == 4


@pytest.mark.parametrize("rank", [None, 0, 65, -1, "6", 6.0, True, [6], 5, float("inf")], ids=str)
def test_a_first_rank_that_is_none_is_refused(pruned: Path, rank: object) -> None:
    change(pruned, init_r=rank)
    refused(pruned, "rank|init_r")


@pytest.mark.parametrize(
    "trigger",
    [[], 5, "5", {}, [5, "9"], [-1], [10**9], [2**70], [5.0], [True], [None], [[5]], [1] * 65, float("nan"), False, 0],
    ids=lambda trigger: str(trigger)[:30],
)
def test_a_trigger_that_is_no_list_of_tokens_is_refused(activated: Path, trigger: object) -> None:
    change(activated, alora_invocation_tokens=trigger)
    refused(activated, "alora_invocation_tokens")


def test_a_trigger_of_64_tokens_is_taken(activated: Path) -> None:
    change(activated, alora_invocation_tokens=[3] * 64)
    assert read_adapter(activated).activation == (3,) * 64


def test_an_activated_adalora_is_refused_as_peft_computes_none(pruned: Path) -> None:
    change(pruned, alora_invocation_tokens=[5])
    refused(pruned, "go with peft_type LORA alone")


def test_what_was_pruned_to_nothing_is_refused_by_its_modules(made: Path) -> None:
    refused(made / "nothing", r"does nothing: model\.layers\.0\.self_attn\.q_proj, model\.layers\.1")


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda tensors: tensors.pop(f"base_model.model.{Q}"), "has no base_model.*lora_E"),
        (lambda tensors: tensors.update({f"base_model.model.{Q}": torch.ones(4, 2)}), "2 columns"),
        (lambda tensors: tensors.update({f"base_model.model.{Q}": torch.ones(3, 1)}), "rank 3"),
        (lambda tensors: tensors[f"base_model.model.{Q}"].fill_(float("nan")), "not finite"),
        (lambda tensors: tensors.update({f"base_model.model.{Q}.weight": torch.ones(4, 1)}), "one kind of tensors"),
    ],
)
def test_odd_singular_values_are_refused(pruned: Path, alter: Any, words: str) -> None:
    tensors = load_file(pruned / TENSORS)
    alter(tensors)
    save_file(tensors, pruned / TENSORS)
    refused(pruned, words)


@pytest.mark.parametrize(("config", "tensors"), [("plain", "pruned"), ("pruned", "plain")])
def test_neither_kind_passes_for_the_other(made: Path, tmp_path: Path, config: str, tensors: str) -> None:
    for kind, name in ((config, CONFIG), (tensors, TENSORS)):
        (tmp_path / "mixed").mkdir(exist_ok=True)
        shutil.copyfile(made / kind / name, tmp_path / "mixed" / name)
    refused(tmp_path / "mixed", "no tensor of the configuration's peft_type")


def test_singular_values_beyond_float32_are_refused(pruned: Path) -> None:
    tensors = load_file(pruned / TENSORS)
    for name, tensor in tensors.items():
        tensor.mul_(1e30 if "lora_B" not in name else 1.0)
    save_file(tensors, pruned / TENSORS)
    with pytest.raises(UnusableAdapter, match="not finite with its scale"):
        read_adapter(pruned)
