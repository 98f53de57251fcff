"""A model of a few hundred kilobytes, made in a second from a seed: real shapes, real code, at once.

It knows nothing: a training worker makes one to see whether its machine still trains. Tests that need a model which
can learn a company's tools use the packaged one.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from gpu_workers.bases.load import quiet

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# How Qwen2 and Qwen3 cut text before they merge bytes.
_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class TinyKind(NamedTuple):
    """What the model is like, and how it is spoken to. The first of its tokens pads."""

    family: str = "qwen3"
    template: str = TEMPLATE
    specials: tuple[str, ...] = SPECIALS
    end: str = "<|im_end|>"
    begin: str | None = None
    """What its template may call bos_token."""
    marks: tuple[str, ...] = ()
    """Tokens that may be written by anybody, such as those around calls."""


QWEN3 = TinyKind()


def make(
    folder: Path, texts: Iterable[str], *, hidden: int = 64, layers: int = 2, seed: int = 0, kind: TinyKind = QWEN3
) -> Path:
    """Writes a Hugging Face folder. The same arguments give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _tokenizer(folder, texts, kind)
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": hidden * 3,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden // 4,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": kind.specials.index(kind.end),
        "pad_token_id": 0,
    }
    quiet()
    model_of: Any = LlamaForCausalLM if kind.family == "llama" else Qwen3ForCausalLM
    model_of(LlamaConfig(**shape) if kind.family == "llama" else Qwen3Config(**shape)).save_pretrained(folder)
    return folder


def _tokenizer(folder: Path, texts: Iterable[str], kind: TinyKind) -> int:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_CUT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(kind.specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in kind.marks])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": kind.end,
        "pad_token": kind.specials[0],
        "chat_template": kind.template,
        "clean_up_tokenization_spaces": False,
    }
    if kind.begin is not None:
        settings["bos_token"] = kind.begin
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    return int(tokenizer.get_vocab_size())
