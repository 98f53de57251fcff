"""The engine's heart: schedule, run, sample, publish. One thread owns it; questions and answers are token ids here."""

from dataclasses import replace
from typing import NamedTuple

import torch

from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.refused import EngineStopped, Refused, RowFailed
from gpu_workers.serve.engine.circuit import StepCircuit, broken
from gpu_workers.serve.engine.decoder import Decoder, Tokens
from gpu_workers.serve.engine.lanes import BASE, Lanes, plan
from gpu_workers.serve.engine.sample import sample
from gpu_workers.serve.engine.schedule import EngineRow, Limits, Schedule, SlotBatch
from gpu_workers.serve.engine.trial import why_broken

LoraRow = EngineRow[LoraWeights]
LoraBatch = SlotBatch[LoraWeights]
Outcomes = list[tuple[LoraRow, int | Refused]]


class Said(NamedTuple):
    """One row said one token; `finish` is set with its last."""

    ticket: int
    token: int
    finish: str | None


class Fell(NamedTuple):
    """One row ends without an answer."""

    ticket: int
    why: Refused


Step = list[Said | Fell]


class Hall:
    """Rows that share one KV cache. A row's KV lives in its own slot, so no adapter ever reads another's."""

    def __init__(self, decoder: Decoder, limits: Limits) -> None:
        self.cache = decoder.cache(limits.cells)
        self.schedule: Schedule[LoraWeights] = Schedule(replace(limits, cells=self.cache.usable))

    def next(self) -> LoraBatch | None:
        batch = self.schedule.next()
        for move in batch.moves if batch else ():
            self.cache.move(*move)
        return batch

    def leave(self, rows: list[LoraRow]) -> None:
        for move in self.schedule.leave(rows):
            self.cache.move(*move)
        if not self.schedule.running:
            self.cache.release()


class Engine:
    """Continuous batching over dense KV slots. Long rows have a hall of their own: they make nobody's batch narrow."""

    def __init__(self, decoder: Decoder, stops: frozenset[int], limits: Limits) -> None:
        self._decoder = decoder
        self._stops = stops
        self._short, self._long = (Hall(decoder, half) for half in limits.halves())
        self._in_turn = [self._short, self._long]
        self._short_reach = self._short.schedule.limits.cells // limits.rows
        self._lanes = Lanes(decoder.sites, decoder.embedding)
        self._circuit = StepCircuit()

    def step(self) -> Step:
        """Brings every row of one batch a token further, hall by hall. Nothing said means nothing to do.

        Raises EngineStopped when not the rows but the engine is at fault.
        """
        self._in_turn.reverse()
        for hall in self._in_turn:
            if (batch := hall.next()) is not None:
                outcomes = self._outcomes(hall, batch)
                self._blame(outcomes)
                return self._publish(hall, outcomes)
        return []

    def submit(self, row: LoraRow) -> None:
        """Raises TooLong for what can never run."""
        hall = self._short if row.final_length <= self._short_reach else self._long
        hall.schedule.submit(row)

    def cancel(self, ticket: int) -> None:
        for hall in self._in_turn:
            hall.leave([row for row in _rows(hall) if row.ticket == ticket])

    def rows(self) -> list[LoraRow]:
        return [row for hall in self._in_turn for row in _rows(hall)]

    def _blame(self, outcomes: Outcomes) -> None:
        """No row of a step could be computed: does the base model alone still work? Else it is not the rows' fault."""
        failed = [isinstance(what, RowFailed) for _, what in outcomes]
        if all(failed) and (why := why_broken(self._decoder)):
            raise EngineStopped(
                f"the engine computes nothing any more: {outcomes[0][1]}. Nor does the base model alone on "
                f"{self._decoder.embedding.device}: {why}. Look at that device and its memory; restart the worker."
            )
        self._circuit.note([(row.owner, not fell) for (row, _), fell in zip(outcomes, failed, strict=True)])

    def _outcomes(self, hall: Hall, batch: LoraBatch) -> Outcomes:
        """A batch that fails is run again row by row: whoever fails alone too is at fault, the others are not."""
        try:
            rows, tokens = self._prepare(hall, batch)
            logits = self._decoder.forward(tokens, hall.cache)
            return list(zip(rows, sample(rows, logits), strict=True))
        except Exception as error:
            if broken(error):
                raise EngineStopped(f"the device is broken: {error}. Restart the worker.") from error
            if len(batch.rows) == 1:
                why = f"a step of the engine failed for this row alone: {type(error).__name__}: {error}"
                return [(batch.rows[0][1], RowFailed(why[:1000]))]
            alone = [self._outcomes(hall, batch._replace(rows=[place])) for place in batch.rows]
            return [each for outcomes in alone for each in outcomes]

    def _prepare(self, hall: Hall, batch: LoraBatch) -> tuple[list[LoraRow], Tokens]:
        """Seats the adapters of all running rows, so that none is moved for a newcomer; lays the batch out by lanes."""
        running = [row for each in self._in_turn for row in each.schedule.running]
        lanes = self._lanes.seat({row.adapter for row in running if row.adapter is not None})
        ordered = sorted(batch.rows, key=lambda place: lanes[place[1].adapter] if place[1].adapter else BASE)
        self._make_room(hall, batch)
        new = [row.prompt + row.said if batch.prefill else row.said[-1:] for _, row in ordered]
        counts = [len(ids) for ids in new]
        device = self._decoder.embedding.device
        starts = [0 if batch.prefill else row.length - 1 for _, row in ordered]
        return [row for _, row in ordered], Tokens(
            ids=torch.tensor([token for ids in new for token in ids], device=device),
            slots=torch.tensor([slot for slot, _ in ordered], device=device).repeat_interleave(
                torch.tensor(counts, device=device)
            ),
            positions=torch.tensor(
                [start + i for start, count in zip(starts, counts, strict=True) for i in range(count)], device=device
            ),
            lengths=counts,
            plan=plan([lanes[row.adapter] if row.adapter else None for _, row in ordered], counts, str(device)),
            prefill=batch.prefill,
        )

    def _make_room(self, hall: Hall, batch: LoraBatch) -> None:
        running = hall.schedule.running
        hall.cache.reserve(len(running), max(row.length for row in running))
        if batch.prefill:
            slots = [slot for slot, _ in batch.rows]
            hall.cache.clear(slice(min(slots), max(slots) + 1))

    def _publish(self, hall: Hall, outcomes: Outcomes) -> Step:
        step: Step = []
        for row, what in outcomes:
            if isinstance(what, Refused):
                step.append(Fell(row.ticket, what))
                continue
            row.said.append(what)
            finish = "stop" if what in self._stops else "length" if len(row.said) >= row.limit else None
            step.append(Said(row.ticket, what, finish))
        ended = [isinstance(each, Fell) or each.finish is not None for each in step]
        hall.leave([row for (row, _), ends in zip(outcomes, ended, strict=True) if ends])
        return step


def _rows(hall: Hall) -> list[LoraRow]:
    return [*hall.schedule.running, *hall.schedule.waiting]
