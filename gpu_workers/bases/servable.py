"""Which models are trained and served here, by what their config says. All others would be computed wrongly."""

from collections.abc import Mapping
from typing import Any

FAMILIES = ("llama", "qwen3")
ROTARY = ("default", "linear", "llama3", "yarn")
"""Kinds of positions that do not depend on how long a prompt is."""


def why_not(config: Mapping[str, Any]) -> str | None:
    """What about it is not served; None: nothing. `config`: what config.json says."""
    family = config.get("model_type")
    if family not in FAMILIES:
        return f"family {family!r:.100}; supported are {', '.join(FAMILIES)}"
    if (kind := _quantised(config.get("quantization_config"))) is not None:
        return f"family {family!r} with weights quantised by {kind!r:.100}; give the folder of the whole weights"
    if config.get("hidden_act", "silu") != "silu":
        return f"family {family!r} with activation {config['hidden_act']!r:.100}; supported is silu"
    if config.get("use_sliding_window"):
        return f"family {family!r} with sliding windows; supported is full attention"
    if (rotary := _rotary(config)) not in ROTARY:
        return f"family {family!r} with rotary type {rotary!r:.100}; supported are {', '.join(ROTARY)}"
    return None


def _quantised(settings: object) -> object | None:
    return settings.get("quant_method", "?") if isinstance(settings, Mapping) else None


def _rotary(config: Mapping[str, Any]) -> object:
    """Under either of the names that it has had."""
    for name in ("rope_parameters", "rope_scaling"):
        if isinstance(rope := config.get(name), Mapping):
            return rope.get("rope_type", rope.get("type", "default"))
    return "default"
