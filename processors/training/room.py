"""What a run takes of a device's memory, reckoned before it begins. Pure: sizes in, bytes out.

What cannot fit is refused by name; what comes close is tried. So nothing here is guessed high: tokens are counted as if
each had four bytes of text, and what libraries waste is not counted at all. Measured on a small base, by DPO as without
it, a token that was read keeps half as much again as is reckoned here.
"""

import msgspec

from processors.training.admit import NotAdmitted
from processors.training.settings import Precision, TrainSettings

BYTES_A_TOKEN = 4
GRADIENT, MOMENTS = 4, 8
"""Bytes for each number of an adapter, which is trained in 32 bits: its gradient, and what AdamW keeps of it."""
NF4 = 0.52
"""Bytes a number, with the scales of double quantisation."""
KEPT_BY_HIDDEN, KEPT_BY_INNER = 6, 2
"""Of each layer, activations that the way back needs: of the width of the model, and of its inner one."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Of a base model, as its config.json says."""

    hidden: int
    layers: int
    inner: int
    vocabulary: int
    attention: int
    """Of all heads together."""
    shared: int
    """Of all heads of keys."""
    tied: bool

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """In and out, of one layer."""
        return {
            "q_proj": (self.hidden, self.attention),
            "k_proj": (self.hidden, self.shared),
            "v_proj": (self.hidden, self.shared),
            "o_proj": (self.attention, self.hidden),
            "gate_proj": (self.hidden, self.inner),
            "up_proj": (self.hidden, self.inner),
            "down_proj": (self.inner, self.hidden),
        }


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes."""

    base: int
    adapter: int
    activations: int

    @property
    def total(self) -> int:
        return self.base + self.adapter + self.activations


def need(shape: Shape, method: str, settings: TrainSettings, longest: int, on_gpu: bool) -> Need:
    """`longest`: bytes of the longest row."""
    width = _width(settings.precision, on_gpu)
    matrices = shape.layers * sum(rows * columns for rows, columns in shape.matrices.values())
    words = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    trained = shape.layers * sum(settings.rank * sum(shape.matrices[module]) for module in settings.modules)
    tokens = _tokens(settings, longest) * min(settings.micro_batch, settings.batch)
    kept = KEPT_BY_HIDDEN * shape.hidden + KEPT_BY_INNER * shape.inner
    of_layers = shape.layers * shape.hidden + kept if settings.gradient_checkpointing else shape.layers * kept
    return Need(
        base=int(matrices * (NF4 if method == "qlora" else width) + words * width),
        adapter=trained * (4 + GRADIENT + MOMENTS),
        activations=tokens * of_layers * width,
    )


def too_large(needed: Need, there: int) -> NotAdmitted | None:
    if needed.total <= there:
        return None
    parts = f"base model {_told(needed.base)}, adapter {_told(needed.adapter)}, texts {_told(needed.activations)}"
    return NotAdmitted(
        "too_large",
        f"The run needs {_told(needed.total)} of memory ({parts}), and the device here has {_told(there)}. "
        "Lower micro_batch, set gradient_checkpointing, or take a smaller base model or method qlora.",
    )


def _tokens(settings: TrainSettings, longest: int) -> int:
    """Of the longest row. By DPO it is a pair: two texts, each within max_tokens, and their prompt is read once. The
    reference pass keeps nothing for the way back."""
    texts = 2 if settings.objective == "dpo" else 1
    return min(texts * settings.max_tokens, longest // BYTES_A_TOKEN)


def _width(precision: Precision, on_gpu: bool) -> int:
    return (2 if on_gpu else 4) if precision == "auto" else 4 if precision in ("float32", "tf32") else 2


def _told(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MiB"
