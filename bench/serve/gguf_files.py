"""The same base and the same adapters as files of llama.cpp, in float32: numbers are copied, none is quantised."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
HERE = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture", "general.file_type"}
"""Fields that the writer makes itself."""


def base(packaged: Path, out: Path) -> Path:
    """The packaged file with every tensor widened to float32, as our own model reads it."""
    reader: Any = gguf.GGUFReader(packaged)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name not in HERE:
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        wide = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, wide)
    _write(writer)
    return out


def adapter(folder: Path, out: Path, config: Any) -> Path:
    """A PEFT folder; of q and k the halves of each head are woven, as llama.cpp's own converter does."""
    settings = json.loads((folder / "adapter_config.json").read_text())
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", settings["lora_alpha"])
    for name, tensor in _renamed(load_file(folder / "adapter_model.safetensors"), config):
        writer.add_tensor(name, np.ascontiguousarray(tensor))
    _write(writer)
    return out


def _renamed(tensors: dict[str, Any], config: Any) -> Iterator[tuple[str, Any]]:
    for name, tensor in tensors.items():
        *_, layer, part, module, side, _ = name.split(".")
        place = NAMES[f"{part}.{module}"]
        if side == "lora_B" and module in ("q_proj", "k_proj"):
            heads = config.num_attention_heads if module == "q_proj" else config.num_key_value_heads
            yield f"blk.{layer}.{place}.weight.lora_b", _woven(tensor, heads)
        else:
            yield f"blk.{layer}.{place}.weight.{side.lower()}", tensor


def _woven(b: Any, heads: int) -> Any:
    return b.reshape(heads, 2, b.shape[0] // heads // 2, b.shape[1]).swapaxes(1, 2).reshape(b.shape)


def _write(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
