"""Four bits as bitsandbytes has them. Its own numbers were written down once: `python -m tests.train.test_nf4`."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu_workers.bases import nf4
from gpu_workers.serve.engine.decoder import Decoder

THEIRS = Path(__file__).with_name("nf4_of_bitsandbytes.json")
"""Of bitsandbytes 0.50.2 on a CPU: hashes of what it packs and unpacks, and each scale's byte."""


def weight() -> torch.Tensor:
    """A last block of scales that is not full; a block of nothing."""
    drawn = np.random.default_rng(4).standard_normal((96, 320), dtype=np.float32)
    drawn[0, :64] = 0
    return torch.from_numpy(drawn)


def sha256(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def by_bitsandbytes() -> dict[str, Any]:
    import bitsandbytes.functional as theirs

    packed, state = theirs.quantize_4bit(weight(), quant_type="nf4", compress_statistics=True)
    return {
        "packed": sha256(packed),
        "scales": state.absmax.tolist(),
        "mean": float(state.offset),
        "largest": state.state2.absmax.tolist(),
        "unpacked": sha256(theirs.dequantize_4bit(packed, state)),
    }


def test_the_numbers_are_those_of_bitsandbytes():
    theirs = json.loads(THEIRS.read_text())
    packed, scales, mean, largest = nf4.pack(weight())
    assert sha256(packed) == theirs["packed"]
    assert (float(mean), largest.tolist()) == (theirs["mean"], theirs["largest"])
    apart = (scales.int() - torch.tensor(theirs["scales"])).abs()
    assert apart.max() <= 1 and apart.sum() <= 2, "it looks scales up in a table, and may miss the nearest by one"
    unpacked = nf4.unpack(packed, torch.tensor(theirs["scales"], dtype=torch.uint8), mean, largest, weight().shape)
    assert sha256(unpacked) == theirs["unpacked"]


def test_gradients_are_those_of_the_unpacked_weight():
    linear = torch.nn.Linear(128, 64)
    packed = nf4.Nf4Linear(linear)
    x = torch.randn(3, 128, requires_grad=True)
    packed(x).square().sum().backward()
    plain = x.detach().clone().requires_grad_()
    torch.nn.functional.linear(plain, packed.weight, linear.bias).square().sum().backward()
    assert torch.allclose(x.grad, plain.grad, atol=1e-5)


def test_a_base_in_four_bits_is_another_base_and_takes_an_eighth_of_the_room(tiny_loaded):
    model, _, identity = tiny_loaded
    small = copy.deepcopy(model)
    nf4.quantise(small)
    assert identity.quantised().sha256 != identity.sha256
    rounded = copy.deepcopy(model)
    nf4.roundly(rounded)
    assert torch.equal(rounded.model.layers[1].mlp.up_proj.weight, small.model.layers[1].mlp.up_proj.weight)
    assert not torch.equal(rounded.model.layers[1].mlp.up_proj.weight, model.model.layers[1].mlp.up_proj.weight)
    assert Decoder(small).shapes() == Decoder(model).shapes()
    was = sum(each.weight.nbytes for name, each in model.named_modules() if name.endswith("proj"))
    layers = [each for each in small.modules() if isinstance(each, nf4.Nf4Linear)]
    now = sum(buffer.nbytes for each in layers for buffer in each.buffers())
    assert len(layers) == 14 and now < was / 7.5


if __name__ == "__main__":
    THEIRS.write_text(json.dumps(by_bitsandbytes()) + "\n")
