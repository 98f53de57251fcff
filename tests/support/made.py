"""Runs whose bytes are no matter: one is trained, and those that are like it get what it made."""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from gpu_workers.bases.files import name_of
from gpu_workers.train.lines import MEASURED, ProofSpec, Report, RunSpec, Spec, Trained
from gpu_workers.train.parent import OnReport
from gpu_workers.train.proof import prove
from gpu_workers.train.run import run

Ended = tuple[list[Report], Trained]


async def train_here(spec: Spec, on_report: OnReport) -> Trained:
    """The same training as in the child, without the seconds that a process takes to import torch."""
    reports: list[Report] = []
    outcome = await asyncio.to_thread(partial(_done, spec), reports.append)
    for report in reports:
        await on_report(report)
    return outcome


class MadeOnce:
    """`train_here`, once for all runs alike. Of what is counted by the dozen, it says the last alone."""

    def __init__(self) -> None:
        self._folder = Path(mkdtemp(prefix="rillfold-made-"))
        self._ended: dict[str, Ended] = {}
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)

    async def __call__(self, spec: Spec, on_report: OnReport) -> Trained:
        if isinstance(spec, ProofSpec):
            return await train_here(spec, on_report)
        reports: list[Report] = []
        outcome = await asyncio.to_thread(self.run, spec, reports.append)
        for report in reports:
            await on_report(report)
        return outcome

    def run(self, spec: RunSpec, report: Callable[[Report], None]) -> Trained:
        made, here = self._folder / _key(spec), (spec.out, spec.out.parent / MEASURED)
        kept = made / "out", made / MEASURED
        if made.name in self._ended:
            _copied(kept, here)
        else:
            reports: list[Report] = []
            outcome = run(spec, reports.append)
            self._ended[made.name] = [it for it in reports if it.phase == "train" or it.step == it.steps], outcome
            _copied(here, kept)
        reported, outcome = self._ended[made.name]
        for each in reported:
            report(each)
        return outcome


def _key(spec: RunSpec) -> str:
    """All that an adapter and its measure come from; what is served lies under its hash, in whichever store."""
    base = spec.base_model, spec.base_name or name_of(spec.base_model)
    served = spec.served and spec.served.name, spec.served_version
    return hashlib.sha256(repr((spec.rows_sha256, base, spec.method, spec.settings, served)).encode()).hexdigest()


def _done(spec: Spec, report: OnReport) -> Trained:
    return prove(spec, report) if isinstance(spec, ProofSpec) else run(spec, report)


def _copied(whence: Iterable[Path], where: Iterable[Path]) -> None:
    for source, target in zip(whence, where, strict=True):
        if source.exists():
            shutil.copytree(source, target, dirs_exist_ok=True)


made_once = MadeOnce()
