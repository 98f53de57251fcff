"""A base model's tokens as a grammar reads them: what each says, and how the model's own tokenizer cuts a text.

The grammar's own reading of a tokenizer's file is not that of the model's chats: there whatever stands between < and >
is a special token, which no text of a grammar is, and text that spells a special token becomes one.
"""

from __future__ import annotations

import json

from llguidance import LLTokenizer, TokenizerWrapper
from tokenizers import Tokenizer

from gpu_workers.bases.chat import Chat
from gpu_workers.refused import BadQuestion

_PROBE = '<tool_call>\n{"name": "Ä b", "arguments": {"a_b": 1.5, "c": ["ü", null]}}\n</tool_call>'


class Vocabulary:
    """Read once for a base model, which takes a second. Raises BadQuestion where it says other than the chats do."""

    def __init__(self, chat: Chat) -> None:
        self._cutter, self._chat = _Cutter(chat), chat
        read = TokenizerWrapper(self._cutter) if self._cutter.by_bytes else self._cutter.file
        self.native = LLTokenizer(read, None, chat.end, LLTokenizer.json_slices())
        probe = chat.encode(_PROBE)
        if self.native.tokenize_str(_PROBE) != probe or self.native.decode_str(probe) != _PROBE:
            raise BadQuestion("this base model's tokens cannot be held to a form: its tokenizer reads them otherwise.")

    def tag(self, text: str) -> str:
        """What stands around a call, as the chats write it: special tokens, where the base's tags are some."""
        stretches = self._chat.template.tag(text)
        return " ".join(f"<[{self._chat.specials[it]}]>" if special else self.literal(it) for it, special in stretches)

    def literal(self, text: str) -> str:
        """As a grammar writes it: a mark, such as the tags around calls, as the one token that it is; the rest spelled.

        Spelled, a mark could be said in pieces, which no model has ever read.
        """
        parts, start = [], 0
        for token, (begins, ends) in self._cutter.cut(text):
            if token in self._chat.marks:
                parts += [_spelled(text[start:begins]), f"<[{token}]>"]
                start = ends
        return " ".join(part for part in [*parts, _spelled(text[start:])] if part)


class _Cutter:
    """What the grammar asks a tokenizer for."""

    bos_token_id = None

    def __init__(self, chat: Chat) -> None:
        self._tokenizer: Tokenizer = Tokenizer.from_str(chat.tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.file = self._tokenizer.to_str()
        self.by_bytes = "ByteLevel" in json.dumps(json.loads(self.file)["pre_tokenizer"])
        """Where tokens are letters with bytes to fall back on, the grammar's own reading knows how."""
        if self.by_bytes:
            self._tokenizer.normalizer = None  # a form's letters are said as they are
        self._tokenizer.encode_special_tokens = True
        self.eos_token_id, self.special_token_ids = chat.end, sorted(chat.specials.values())
        self.tokens = [chat.bytes_of(token) for token in range(1 + max(chat.tokenizer.get_vocab().values()))]

    def __call__(self, text: str) -> list[int]:
        return [token for token, _ in self.cut(text)]

    def cut(self, text: str) -> list[tuple[int, tuple[int, int]]]:
        """Each token, and where in the text it stands."""
        found = self._tokenizer.encode(text, add_special_tokens=False)
        return list(zip(found.ids, found.offsets, strict=True))


def _spelled(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""
