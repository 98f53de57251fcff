"""An adapter's settings, read once for the store and for serving: what is not known here word for word is refused.

An adapter may come from anywhere. Its patterns are names, never regular expressions; its numbers are numbers.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpu_workers.errors import ArtifactRefused

MAX_CONFIG = 1 << 20
MAX_RANK = 64
MAX_ALPHA = 1e6
MAX_PATTERNS = 1_000
MAX_TRIGGER, MAX_TOKEN = 64, 1 << 24
"""Tokens that switch an activated adapter on, and above every vocabulary there is."""
# Settings that cannot change what a trained adapter computes, or that are read below. Every other one must be off: a
# setting that nobody knows would otherwise be served as if it were not there.
KNOWN = frozenset(
    {
        "alora_invocation_tokens",
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
# How AdaLoRA was trained: what it came to is its ranks, and the first one is what its scale is divided by.
KNOWN_OF_ADALORA = KNOWN | {"beta1", "beta2", "deltaT", "init_r", "orth_reg_weight"}
KNOWN_OF_ADALORA |= {"target_r", "tfinal", "tinit", "total_step"}
RANKNUM_EPSILON = 1e-5
"""PEFT's, so that no module of rank 0 is divided by 0."""
# Starting points that leave the base as it is. PiSSA, OLoRA and their like move weight out of the base.
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_]{1,64}(\.[A-Za-z0-9_]{1,64}){0,8}")
# What PEFT writes of the class that it was trained on. Whoever loads by it imports what it names.
LIBRARY = re.compile(r"transformers(\.[A-Za-z0-9_]{1,64}){0,8}")
LAYER = re.compile(r"model\.layers\.(\d{1,4})\.")
LORA_E = ".lora_E"
"""How AdaLoRA's rank pattern names a module: by the tensor that was pruned."""


@dataclass(frozen=True)
class AdapterConfig:
    rank: int
    alpha: float
    rank_stabilised: bool
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    modules: tuple[str, ...]
    excluded: tuple[str, ...]
    layers: frozenset[int] | None
    """None: all of them."""
    adalora: bool = False
    """Then `ranks` are by whole names, and 0 where everything was pruned."""
    activation: tuple[int, ...] | None = None
    """The tokens from whose last occurrence on it is applied; None: to all."""

    def names(self, module: str) -> bool:
        """PEFT would put an adapter at this module."""
        layer = LAYER.match(module)
        inside = self.layers is None or (layer is not None and int(layer[1]) in self.layers)
        return inside and _ends_in(module, self.modules) and not _ends_in(module, self.excluded)

    def rank_of(self, module: str) -> int:
        if self.adalora:
            return self.ranks.get(module, self.rank)
        return int(_by_pattern(self.ranks, module, self.rank))

    def scale_of(self, module: str) -> float:
        if self.adalora:  # by the first rank, whatever was pruned; by no pattern, and never rank-stabilised
            return self.alpha / (self.rank + RANKNUM_EPSILON)
        rank = self.rank_of(module)
        return _by_pattern(self.alphas, module, self.alpha) / (math.sqrt(rank) if self.rank_stabilised else rank)


def read_config(path: Path) -> AdapterConfig:
    """Raises ArtifactRefused, with the setting that cannot be served."""
    config = _object(path)
    kind = config.get("peft_type")
    if kind not in ("LORA", "ADALORA"):
        raise ArtifactRefused(
            f"{path}: peft_type {kind!r:.80} cannot be served, only LORA and ADALORA. Train it as one of them."
        )
    known = KNOWN if kind == "LORA" else KNOWN_OF_ADALORA
    used = [name for name, value in config.items() if name not in known and value and value != "none"]
    if config.get("init_lora_weights", True) not in PLAIN_STARTS:
        used.append("init_lora_weights")
    if config.get("layers_pattern") not in (None, "", [], "layers", ["layers"]):
        used.append("layers_pattern")
    if not _names_transformers(config.get("auto_mapping")):
        used.append("auto_mapping")
    if used:
        raise ArtifactRefused(
            f"{path}: the adapter uses {', '.join(used)!s:.200}, which is not computed here. Train it without."
        )
    try:
        return _checked(config) if kind == "LORA" else _checked_adalora(config)
    except ValueError as error:
        raise ArtifactRefused(f"{path}: {error}.") from error


def _names_transformers(mapping: object) -> bool:
    if not mapping:
        return True
    if not isinstance(mapping, dict) or set(mapping) != {"base_model_class", "parent_library"}:
        return False
    class_, library = str(mapping["base_model_class"]), str(mapping["parent_library"])
    return class_.isidentifier() and LIBRARY.fullmatch(library) is not None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads`: of two values of one name, each reader would take another."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice in it")
    return dict(pairs)


def _object(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as handle:
            text = handle.read(MAX_CONFIG + 1)
        if len(text) > MAX_CONFIG:
            raise ValueError(f"it is larger than {MAX_CONFIG} bytes")
        config = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ArtifactRefused(f"{path}: not an adapter's configuration: {error!s:.200}.") from error
    if not isinstance(config, dict):
        raise ArtifactRefused(f"{path}: not an adapter's configuration: it is no JSON object.")
    return config


def _checked(config: Mapping[str, Any]) -> AdapterConfig:
    stabilised = config.get("use_rslora") or False
    if not isinstance(stabilised, bool):
        raise ValueError("use_rslora is neither true nor false")
    layers = config.get("layers_to_transform")
    return AdapterConfig(
        rank=_rank("r", config.get("r")),
        alpha=_alpha("lora_alpha", config.get("lora_alpha")),
        rank_stabilised=stabilised,
        ranks={name: _rank("rank_pattern", value) for name, value in _patterns("rank_pattern", config).items()},
        alphas={name: _alpha("alpha_pattern", value) for name, value in _patterns("alpha_pattern", config).items()},
        modules=_names("target_modules", config.get("target_modules")),
        excluded=_names("exclude_modules", config.get("exclude_modules") or []),
        layers=None if layers is None else _layers(layers),
        activation=_activation(config.get("alora_invocation_tokens")),
    )


def _checked_adalora(config: Mapping[str, Any]) -> AdapterConfig:
    """As PEFT computes it: neither r, alpha_pattern nor use_rslora says anything there."""
    if config.get("alora_invocation_tokens") is not None:
        raise ValueError("alora_invocation_tokens go with peft_type LORA alone")
    unused = {
        "rank_pattern": None,
        "alpha_pattern": None,
        "use_rslora": False,
        "r": _rank("init_r", config.get("init_r")),
    }
    plain, kept = _checked({**config, **unused}), _patterns("rank_pattern", config)
    if strays := [name for name in kept if not plain.names(name.removesuffix(LORA_E)) or not name.endswith(LORA_E)]:
        raise ValueError(f"rank_pattern holds {strays[0]!r:.80}, which is no {LORA_E} of a module that is named")
    ranks = {name.removesuffix(LORA_E): _kept(value, plain.rank) for name, value in kept.items()}
    return replace(plain, adalora=True, ranks=ranks)


def _kept(value: object, rank: int) -> int:
    """How many of the first ranks are left; or, one by one, which."""
    if isinstance(value, list) and len(value) == rank and all(_is_bit(one) for one in value):
        return sum(value)
    if type(value) is not int or not 0 <= value <= rank:
        raise ValueError(f"rank_pattern is {value!r:.80}, and no list of {rank} times true or false")
    return value


def _is_bit(value: object) -> bool:
    return type(value) in (bool, int) and value in (0, 1)


def _activation(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not 0 < len(value) <= MAX_TRIGGER:
        raise ValueError(f"alora_invocation_tokens is {value!r:.80}, and no list of 1 to {MAX_TRIGGER} tokens")
    if any(type(token) is not int or not 0 <= token < MAX_TOKEN for token in value):
        raise ValueError(f"alora_invocation_tokens holds what is no token's number: {value!r:.80}")
    return tuple(value)


def _rank(name: str, value: object) -> int:
    if type(value) is not int or not 0 < value <= MAX_RANK:
        raise ValueError(f"{name} is {value!r:.80}, and no whole number of 1 to {MAX_RANK}")
    return value


def _alpha(name: str, value: object) -> float:
    if type(value) not in (int, float) or not 0 < value <= MAX_ALPHA:  # type: ignore[operator]
        raise ValueError(f"{name} is {value!r:.80}, and no number above 0 up to {MAX_ALPHA:,.0f}")
    return float(value)  # type: ignore[arg-type]


def _patterns(name: str, config: Mapping[str, Any]) -> Mapping[str, object]:
    value = config.get(name) or {}
    if not isinstance(value, dict) or len(value) > MAX_PATTERNS:
        raise ValueError(f"{name} is no object of at most {MAX_PATTERNS} names")
    _names(name, list(value))
    return value


def _names(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_PATTERNS:
        raise ValueError(f"{name} is no list of at most {MAX_PATTERNS} names")
    for each in value:
        if not isinstance(each, str) or not PLAIN_NAME.fullmatch(each):
            raise ValueError(
                f"{name} holds {each!r:.80}, which is not the plain name of a module or a dotted end of it"
            )
    return tuple(value)


def _layers(value: object) -> frozenset[int]:
    layers = value if isinstance(value, list) else [value]
    if len(layers) > MAX_PATTERNS or any(type(layer) is not int for layer in layers):
        raise ValueError("layers_to_transform is no list of layers")
    return frozenset(layers)


def _ends_in(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def _by_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    """PEFT's own rule: the first pattern that is the module's name or a dotted end of it. A dot is any letter there."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
