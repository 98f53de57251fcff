"""The engine's heart: schedule, run, sample, publish. One thread owns it; questions and answers are token ids here."""

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import accumulate, takewhile
from typing import Any, NamedTuple

import numpy as np
import torch

from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.refused import EngineStopped, NotFinite, Refused, RowFailed
from gpu_workers.serve.engine.attention import RowSpan
from gpu_workers.serve.engine.circuit import StepCircuit, broken
from gpu_workers.serve.engine.decoder import Decoder, Tokens
from gpu_workers.serve.engine.lanes import Lanes, Place, order, plan
from gpu_workers.serve.engine.moved import moved
from gpu_workers.serve.engine.sample import Drawn, sample
from gpu_workers.serve.engine.trial import why_broken
from gpu_workers.serve.forms.mask import mask_logits
from gpu_workers.serve.schedule.rows import EngineRow, Feed, Limits
from gpu_workers.serve.schedule.schedule import Schedule

LoraRow = EngineRow[LoraWeights]
LoraFeed = Feed[LoraWeights]
Places = np.ndarray[Any, np.dtype[np.int64]]
Outcomes = list[tuple[LoraFeed, Drawn | Refused | None]]
"""None: more of the row's prompt has yet to be read."""


class Said(NamedTuple):
    """One row said something; `finish` is set with its last. `drawn` is how the first of the tokens came about."""

    ticket: int
    tokens: tuple[int, ...]
    finish: str | None
    drawn: Drawn


class Fell(NamedTuple):
    """One row ends without an answer."""

    ticket: int
    why: Refused


Step = list[Said | Fell]


class KVMemory(NamedTuple):
    """Of keys and values, in pages."""

    pages: int
    held: int


class Engine:
    """Continuous batching over paged KV: prompts, answers and forced tokens of all adapters go through in one step."""

    def __init__(self, decoder: Decoder, stops: frozenset[int], limits: Limits) -> None:
        self._decoder = decoder
        self._stops = stops
        self._schedule: Schedule[LoraWeights] = Schedule(limits)
        self._cache = decoder.cache(limits.pages, self._schedule.pages.size)
        self._lanes = Lanes(decoder.sites, decoder.embedding)
        self._rows: dict[int, LoraRow] = {}
        self._circuit = StepCircuit()
        self._device = decoder.embedding.device

    def step(self) -> Step:
        """Brings the rows of one batch further. Raises EngineStopped when not the rows but the engine is at fault."""
        if (batch := self._schedule.next()) is None:
            return []
        self._cache.clear(batch.fresh)
        outcomes = self._outcomes(batch.feeds) if batch.feeds else []
        self._blame(outcomes)
        return self._publish(outcomes)

    def submit(self, row: LoraRow) -> None:
        """Raises TooLong for what can never run. Where chances are wanted nothing is said unasked."""
        if row.form is not None and row.logprobs is None:
            for token in takewhile(lambda token: token not in self._stops, row.form.begins[: row.limit - 1]):
                row.form.take(token)
                row.said.append(token)
        self._schedule.submit(row)
        self._rows[row.ticket] = row

    def cancel(self, ticket: int) -> None:
        if (row := self._rows.pop(ticket, None)) is not None:
            self._schedule.leave([row])

    def rows(self) -> list[LoraRow]:
        return list(self._rows.values())

    def busy(self) -> bool:
        return bool(self._rows)

    def memory(self) -> KVMemory:
        pages = self._schedule.pages
        return KVMemory(pages.usable, pages.usable - pages.left)

    def _blame(self, outcomes: Outcomes) -> None:
        """No row of a step could be computed: does the base model alone still work? Else it is not the rows' fault."""
        if not outcomes:
            return
        failed = [isinstance(what, RowFailed) for _, what in outcomes]
        if all(failed) and (why := why_broken(self._decoder)):
            raise EngineStopped(
                f"the engine computes nothing any more: {outcomes[0][1]}. Nor does the base model alone on "
                f"{self._decoder.embedding.device}: {why}. Look at that device and its memory; restart the worker."
            )
        self._circuit.note([(feed.row.owner, not fell) for (feed, _), fell in zip(outcomes, failed, strict=True)])

    def _outcomes(self, feeds: Sequence[LoraFeed]) -> Outcomes:
        """All running rows' adapters have their lanes, so that none is moved for a newcomer."""
        done = self._tried(feeds, [row.adapter for row in self._schedule.running])
        return self._apart(feeds) if isinstance(done, str) else done

    def _apart(self, feeds: Sequence[LoraFeed]) -> Outcomes:
        """What failed is run again in halves, each with no adapter's lanes but its own: whoever fails alone too is at
        fault, the others are not."""
        done = self._tried(feeds, [feed.adapter for feed in feeds])
        if not isinstance(done, str):
            return done
        if len(feeds) == 1:
            return [(feeds[0], RowFailed(f"a step of the engine failed for this row alone: {done}"[:1000]))]
        half = len(feeds) // 2
        return self._apart(feeds[:half]) + self._apart(feeds[half:])

    def _tried(self, feeds: Sequence[LoraFeed], adapters: Iterable[LoraWeights | None]) -> Outcomes | str:
        """Or why not. The error itself is let go: it holds what the step had in memory."""
        try:
            return self._run(feeds, {weights for weights in adapters if weights is not None})
        except Exception as error:
            if broken(error):
                raise EngineStopped(f"the device is broken: {error}. Restart the worker.") from error
            return f"{type(error).__name__}: {error}"

    def _run(self, feeds: Sequence[LoraFeed], adapters: Set[LoraWeights]) -> Outcomes:
        feeds, tokens = self._prepare(feeds, self._lanes.seat(adapters))
        seen = self._decoder.forward(tokens, self._cache)
        rows = [feed.row for feed in feeds if feed.asks]
        held = mask_logits(seen.logits, [row.form for row in rows])
        drawn, finite = sample(rows, seen.logits, held.logits, seen.finite)
        judged = (each if each.finite else _NOT_FINITE for each in drawn)
        came = iter([held.fell.get(i, each) for i, each in enumerate(judged)])
        outcomes: Outcomes = [(feed, next(came) if feed.asks else None) for feed in feeds]
        return [(feed, what if well else _NOT_FINITE) for (feed, what), well in zip(outcomes, finite, strict=True)]

    def _prepare(self, feeds: Sequence[LoraFeed], lanes: Mapping[LoraWeights, Place]) -> tuple[list[LoraFeed], Tokens]:
        """Lays the batch out by lanes."""
        feeds = sorted(feeds, key=lambda feed: order(lanes[feed.adapter] if feed.adapter else None, feed.count))
        counts = [feed.count for feed in feeds]
        ends, size = list(accumulate(counts)), self._cache.size
        spans = [
            RowSpan(end - feed.count, feed.start, feed.count, feed.row.pages[: -(-(feed.start + feed.count) // size)])
            for feed, end in zip(feeds, ends, strict=True)
        ]
        ids, positions, cells, asks = moved(
            [
                torch.tensor([token for feed in feeds for token in feed.ids]),
                torch.from_numpy(np.concatenate([np.arange(span.start, span.start + span.length) for span in spans])),
                torch.from_numpy(np.concatenate([_cells(span, size) for span in spans])),
                torch.tensor([end - 1 for feed, end in zip(feeds, ends, strict=True) if feed.asks], dtype=torch.long),
            ],
            self._device,
        )
        seats = [lanes[feed.adapter] if feed.adapter else None for feed in feeds]
        return feeds, Tokens(ids, positions, cells, spans, asks, plan(seats, counts, self._device))

    def _publish(self, outcomes: Outcomes) -> Step:
        """What was read can be read again, what was said is told, and who is done leaves."""
        fell = {feed.row: what for feed, what in outcomes if isinstance(what, Refused)}
        self._schedule.fed(feed for feed, _ in outcomes if feed.row not in fell)
        said = [_said(feed.row, what, self._stops) for feed, what in outcomes if isinstance(what, Drawn)]
        step: Step = [*said, *(Fell(row.ticket, why) for row, why in fell.items())]
        for each in step:
            if isinstance(each, Fell) or each.finish is not None:
                spoilt = isinstance(each, Fell) and isinstance(each.why, NotFinite | RowFailed)
                self._schedule.leave([self._rows.pop(each.ticket)], forget=spoilt)
        return step


def _cells(span: RowSpan, size: int) -> Places:
    """Where its new tokens lie in the cache."""
    places = np.arange(span.start, span.start + span.length)
    pages = np.array(span.pages[span.start // size :])
    return pages[places // size - span.start // size] * size + places % size


_NOT_FINITE = NotFinite("the model's numbers are not finite for this prompt and adapter; no token can be said.")


def _said(row: LoraRow, drawn: Drawn, stops: frozenset[int]) -> Said | Fell:
    """The token that was drawn, and those that the row's form has follow it. The first time also what came before."""
    told = row.told
    try:
        row.said += _with_forced(row, drawn.token)
    except Refused as error:
        return Fell(row.ticket, error)
    ends = next((place for place in range(told, len(row.said)) if row.said[place] in stops), None)
    del row.said[row.limit if ends is None else min(ends + 1, row.limit) :]
    row.told = len(row.said)
    stopped = row.said[-1] in stops
    finish = "stop" if stopped else "length" if len(row.said) >= row.limit else None
    return Said(row.ticket, tuple(row.said[told:]), finish, drawn)


def _with_forced(row: LoraRow, token: int) -> list[int]:
    """Where chances are wanted each token is asked for: a forced one has none."""
    if row.form is None:
        return [token]
    row.form.take(token)
    forced = [] if row.logprobs is not None else row.form.forced()
    for each in forced:
        row.form.take(each)
    return [token, *forced]
