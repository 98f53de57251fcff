"""A tokenizer as llama.cpp reads it: the very one that is served here, or a refusal that names what it cannot say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gguf import GGUFWriter, TokenType

from gpu_workers.bases.chat import ENDS, Chat
from gpu_workers.errors import ExportRefused
from gpu_workers.export.chat_template import template_of

_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_BYTES = "bytes"
CUTS = {
    (rf"{_ENDINGS}\p{{N}}{_REST}", False): "qwen2",
    (rf"{_ENDINGS}\p{{N}}{{1,3}}{_REST}", True): "llama-bpe",
    (_BYTES, False): "gpt-2",
    (f"digits {_BYTES}", False): "smollm",
}
"""How text is cut before bytes are merged, and whether whole words need no merges: what llama.cpp calls that."""


def describe(writer: GGUFWriter, chat: Chat, vocabulary: int) -> None:
    """`vocabulary`: rows of the embedding; those that no token has are padding."""
    backend: Any = chat.tokenizer
    told = json.loads(backend.backend_tokenizer.to_str())
    pre = _cut(told)
    tokens, kinds = _tokens(told, vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in told["model"]["merges"]])
    _specials(writer, chat)
    writer.add_chat_template(template_of(chat))


def _cut(told: Mapping[str, Any]) -> str:
    model = told["model"]
    if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise ExportRefused(f"the base's tokenizer is {model['type']} and no byte-level BPE: it is not exported.")
    parts = _parts(told.get("pre_tokenizer"))
    found = CUTS.get((" ".join(parts), bool(model.get("ignore_merges"))))
    if found is None:
        raise ExportRefused(f"the base's tokenizer cuts text in a way that has no name here: {parts!s:.300}.")
    if (normal := _normalises(told.get("normalizer"))) not in ("", "NFC"):
        raise ExportRefused(f"the base's tokenizer changes text by {normal:.80}, which llama.cpp does not.")
    return found


def _parts(cutter: Any) -> list[str]:
    kind = cutter and cutter["type"]
    if kind == "Sequence":
        return [part for each in cutter["pretokenizers"] for part in _parts(each)]
    if kind == "Split" and cutter["behavior"] == "Isolated" and not cutter["invert"]:
        return [cutter["pattern"].get("Regex", "?")]
    if kind == "Digits" and cutter["individual_digits"]:
        return ["digits"]
    if kind == "ByteLevel" and not cutter["add_prefix_space"]:
        return [_BYTES] if cutter["use_regex"] else []
    return [str(kind)]


def _normalises(normalizer: Any) -> str:
    if not normalizer:
        return ""
    inside = normalizer.get("normalizers", ()) if normalizer["type"] == "Sequence" else None
    return normalizer["type"] if inside is None else ", ".join(filter(None, map(_normalises, inside)))


def _tokens(told: Mapping[str, Any], vocabulary: int) -> tuple[list[str], list[int]]:
    by_id = {number: (token, TokenType.NORMAL) for token, number in told["model"]["vocab"].items()}
    for each in told["added_tokens"]:
        by_id[each["id"]] = each["content"], TokenType.CONTROL if each["special"] else TokenType.USER_DEFINED
    if max(by_id) >= vocabulary:
        raise ExportRefused(f"the base's tokenizer has token {max(by_id)}, and its embedding {vocabulary} rows.")
    padded = [by_id.get(number, (f"[PAD{number}]", TokenType.UNUSED)) for number in range(vocabulary)]
    return [token for token, _ in padded], [int(kind) for _, kind in padded]


def _specials(writer: GGUFWriter, chat: Chat) -> None:
    tokenizer = chat.tokenizer
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(chat.end)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    # llama.cpp finds by their names those that end an answer everywhere; of others it can be told two.
    others = sorted(end for end in chat.ends - {chat.end} if tokenizer.convert_ids_to_tokens(end) not in ENDS)
    for end, add in zip(others, (writer.add_eot_token_id, writer.add_eom_token_id), strict=False):
        add(end)
    if len(others) > 2:
        raise ExportRefused(
            f"the base ends its answers by {len(others) + 1} tokens of its own: {others}; three can be said."
        )
    # Every word of a prompt stands in the template. llama.cpp would put this before it.
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
