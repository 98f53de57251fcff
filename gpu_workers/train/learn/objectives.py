"""From rows to what a run learns by, as its settings say."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from gpu_workers.bases.chat import Chat
from gpu_workers.train.learn.loop import Objective
from gpu_workers.train.learn.preferences import Dpo, Judged, Kto, Pair, judged
from gpu_workers.train.learn.samples import Text, fits, texts
from gpu_workers.train.learn.supervised import Supervised
from processors.dataset.lessons import was_wrong
from processors.training.settings import TrainSettings

Rows = Sequence[Any]


def objective_of(rows: Rows, chat: Chat, settings: TrainSettings) -> Objective:
    """Raises NoPairs or OneSided where the rows have nothing for it."""
    kind = _KINDS[settings.objective]
    taught = [row for row in rows if kind.teaches(row)]
    learned = [row for row in taught if not row.held_out]
    return kind.make(learned, _watched(taught, chat, settings), chat, settings)


def _watched(rows: Rows, chat: Chat, settings: TrainSettings) -> Rows:
    """Held-out rows for the held-out loss: always the same ones, spread over all."""
    if not settings.measure_every:
        return []
    kept = [row for row in rows if row.held_out and fits(chat, row, settings.max_tokens, settings.tools)]
    kept.sort(key=lambda row: hashlib.sha256(msgspec.json.encode([row.prompt, row.answer])).digest())
    return list(islice(kept, settings.evaluation_rows))


def _supervised(learned: Rows, watched: Rows, chat: Chat, settings: TrainSettings) -> Supervised:
    def read(rows: Rows) -> list[Text]:
        return _texts(rows, chat, settings)

    return Supervised(read(learned), read(watched), settings, chat.end)


def _dpo(learned: Rows, watched: Rows, chat: Chat, settings: TrainSettings) -> Dpo:
    def read(rows: Rows) -> list[Pair]:
        chosen = _alone(rows, chat, settings)
        rejected = _alone(map(_as_rejected, rows), chat, settings)
        return [Pair(*both) for both in zip(chosen, rejected, strict=True)]

    return Dpo(read(learned), read(watched), settings, chat.end)


def _kto(learned: Rows, watched: Rows, chat: Chat, settings: TrainSettings) -> Kto:
    def read(rows: Rows) -> list[Judged]:
        said = [(row, bool(row.good) or _was_corrected(row)) for row in rows]
        said += [(_as_rejected(row), False) for row in rows if _was_corrected(row)]
        alone = _alone([row for row, _ in said], chat, settings)
        return judged([(text, good) for text, (_, good) in zip(alone, said, strict=True)], settings.seed)

    return Kto(read(learned), read(watched), settings, chat.end)


def _texts(rows: Iterable[Any], chat: Chat, settings: TrainSettings) -> list[Text]:
    """An activated adapter acts from one place on: there each answer is a text of its own."""
    return (
        _alone(rows, chat, settings)
        if settings.activation != "always"
        else texts(chat, rows, settings.max_tokens, settings.tools)
    )


def _alone(rows: Iterable[Any], chat: Chat, settings: TrainSettings) -> list[Text]:
    return [text for row in rows for text in texts(chat, [row], settings.max_tokens, settings.tools)]


def _as_rejected(row: Any) -> Any:
    return msgspec.structs.replace(row, answer=row.rejected)


def _was_right(row: Any) -> bool:
    """As far as anybody knows. What was called wrong stands in the prompt of what came after it all the same."""
    return not was_wrong(row)


def _was_corrected(row: Any) -> bool:
    """Rows of rules 1 and 2 hold nothing of what was said of them."""
    return getattr(row, "rejected", None) is not None


def _was_judged(row: Any) -> bool:
    return getattr(row, "good", None) is not None or _was_corrected(row)


class _Kind(NamedTuple):
    teaches: Callable[[Any], bool]
    make: Callable[[Rows, Rows, Chat, TrainSettings], Objective]


_KINDS: Mapping[str, _Kind] = {
    "supervised": _Kind(_was_right, _supervised),
    "dpo": _Kind(_was_corrected, _dpo),
    "kto": _Kind(_was_judged, _kto),
}
