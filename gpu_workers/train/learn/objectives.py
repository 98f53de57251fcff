"""From rows to what a run learns by, as its settings say."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import msgspec

from gpu_workers.bases.chat import Chat
from gpu_workers.train.learn.loop import Objective
from gpu_workers.train.learn.preferences import Dpo, Judged, Kto, Pair, judged
from gpu_workers.train.learn.samples import Text, alone, content, fits, texts
from gpu_workers.train.learn.supervised import Supervised
from processors.dataset.lessons import was_wrong
from processors.dataset.turns import THIRD
from processors.measure.cases import watched
from processors.training.settings import TrainSettings

Rows = Sequence[Any]
Item = TypeVar("Item")


def objective_of(rows: Rows, chat: Chat, settings: TrainSettings) -> Objective:
    """Raises NoPairs or OneSided where the rows have nothing for it."""
    kind = _KINDS[settings.objective]
    taught = [row for row in rows if kind.teaches(row)]
    learned = [row for row in taught if not row.held_out]
    return kind.make(learned, _watched(taught, chat, settings), chat, settings)


def _watched(rows: Rows, chat: Chat, settings: TrainSettings) -> Rows:
    """Held-out rows for the held-out loss: always the same ones, spread over all. Where it decides when a run ends,
    none that the gate looks at."""
    if not settings.measure_every:
        return []
    some = [row for row in rows if (watched(row) if settings.patience else row.held_out)]
    kept = [row for row in some if fits(chat, row, settings.max_tokens, settings.tools)]
    kept.sort(key=lambda row: hashlib.sha256(msgspec.json.encode([row.prompt, row.answer])).digest())
    return list(islice(kept, settings.evaluation_rows))


def _supervised(learned: Rows, watched: Rows, chat: Chat, settings: TrainSettings) -> Supervised:
    def read(rows: Rows) -> list[Text]:
        return _once(_texts(rows, chat, settings), content, settings)

    return Supervised(read(learned), read(watched), settings, chat.end)


def _dpo(learned: Rows, watched: Rows, chat: Chat, settings: TrainSettings) -> Dpo:
    def read(rows: Rows) -> list[Pair]:
        chosen = _alone(rows, chat, settings)
        rejected = _alone(map(_as_rejected, rows), chat, settings)
        pairs = [Pair(*both) for both in zip(chosen, rejected, strict=True)]
        return _once(pairs, lambda pair: content(pair.chosen) + content(pair.rejected), settings)

    return Dpo(read(learned), read(watched), settings, chat.end)


def _kto(learned: Rows, watched: Rows, chat: Chat, settings: TrainSettings) -> Kto:
    def read(rows: Rows) -> list[Judged]:
        said = [(row, bool(row.good) or _was_corrected(row)) for row in rows]
        said += [(_as_rejected(row), False) for row in rows if _was_corrected(row)]
        texts = _alone([row for row, _ in said], chat, settings)
        both = [(text, good) for text, (_, good) in zip(texts, said, strict=True)]
        return judged(_once(both, lambda each: f"{content(each[0])}{each[1]}", settings), settings.seed)

    return Kto(read(learned), read(watched), settings, chat.end)


def _texts(rows: Iterable[Any], chat: Chat, settings: TrainSettings) -> list[Text]:
    """An activated adapter acts from one place on: there each answer is a text of its own."""
    if settings.activation != "always":
        return _alone(rows, chat, settings)
    return texts(chat, rows, settings.max_tokens, settings.tools)


def _alone(rows: Iterable[Any], chat: Chat, settings: TrainSettings) -> list[Text]:
    return [alone(chat, row, settings.max_tokens, settings.tools) for row in rows]


def _once(items: Iterable[Item], content_of: Callable[[Item], str], settings: TrainSettings) -> list[Item]:
    """Conversations that differ only in what a model is not shown teach one thing: it is learned once, as the first."""
    if settings.rule < THIRD:
        return list(items)
    found: dict[str, Item] = {}
    for item in items:
        found.setdefault(content_of(item), item)
    return list(found.values())


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
