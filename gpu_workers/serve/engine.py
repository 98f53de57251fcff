"""The engine's heart: schedule, run, sample, publish. One thread owns it; questions and answers are token ids here."""

from __future__ import annotations

from typing import NamedTuple

import torch

from gpu_workers.serve.adapter_file import LoraWeights
from gpu_workers.serve.decoder import Decoder, Tokens
from gpu_workers.serve.lanes import Lanes, plan
from gpu_workers.serve.sample import sample
from gpu_workers.serve.schedule import Batch, Limits, Row, Schedule

LoraRow = Row[LoraWeights]
LoraBatch = Batch[LoraWeights]


class Said(NamedTuple):
    """One row said one token; `finish` is set with its last."""

    ticket: int
    token: int
    finish: str | None


class Engine:
    """Continuous batching over dense KV slots. A row's KV lives in its own slot, so no adapter ever reads another's."""

    def __init__(self, decoder: Decoder, stops: frozenset[int], limits: Limits) -> None:
        self._decoder = decoder
        self._stops = stops
        self._schedule: Schedule[LoraWeights] = Schedule(limits)
        self._cache = decoder.cache()
        self._lanes = Lanes(decoder.sites, decoder.embedding)

    def step(self) -> list[Said]:
        """Brings every row of one batch a token further. Nothing said means nothing to do."""
        batch = self._schedule.next()
        if batch is None:
            return []
        rows, tokens = self._prepare(batch)
        logits = self._decoder.forward(tokens, self._cache)
        return self._publish(rows, sample(rows, logits))

    def submit(self, row: LoraRow) -> None:
        self._schedule.waiting.append(row)

    def cancel(self, ticket: int) -> None:
        self._leave([row for row in self.rows() if row.ticket == ticket])

    def clear(self) -> list[LoraRow]:
        """Everybody out, as after a fault in the middle of a step."""
        rows = self.rows()
        self._leave(rows)
        return rows

    def rows(self) -> list[LoraRow]:
        return [*self._schedule.running, *self._schedule.waiting]

    def running(self) -> int:
        return len(self._schedule.running)

    def _prepare(self, batch: LoraBatch) -> tuple[list[LoraRow], Tokens]:
        """Seats the adapters of all running rows, so that none is moved for a newcomer; lays the batch out by lanes."""
        lanes = self._lanes.seat({row.adapter for row in self._schedule.running if row.adapter is not None})
        ordered = sorted(batch.rows, key=lambda place: -1 if place[1].adapter is None else lanes[place[1].adapter])
        self._cache.reserve(len(self._schedule.running), max(row.length for row in self._schedule.running))
        new = [row.prompt if batch.prefill else row.said[-1:] for _, row in ordered]
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

    def _publish(self, rows: list[LoraRow], tokens: list[int]) -> list[Said]:
        said = []
        for row, token in zip(rows, tokens, strict=True):
            row.said.append(token)
            finish = "stop" if token in self._stops else "length" if len(row.said) >= row.limit else None
            said.append(Said(row.ticket, token, finish))
        self._leave([row for row, what in zip(rows, said, strict=True) if what.finish])
        return said

    def _leave(self, rows: list[LoraRow]) -> None:
        for move in self._schedule.leave(rows):
            self._cache.move(*move)
        if not self._schedule.running:
            self._cache.release()
