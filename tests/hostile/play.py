"""Lines at once, a few at a time, and then a look at everything that must hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from streams.log.kafka.log import KafkaLog
from tests.hostile.checks import Watch, rested, wrong
from tests.hostile.mallory.doors import RawKafka
from tests.hostile.mallory.scene import Scene
from tests.hostile.mallory.words import Line
from tests.hostile.stage import Stage

AT_ONCE = 6


class Played(NamedTuple):
    sent: int
    untaken: list[str]
    wrong: list[str]
    seconds: float

    def __str__(self) -> str:
        return f"{self.sent} sent, {len(self.untaken)} of them not taken by the broker, {self.seconds:.0f} s"


async def play(stage: Stage, watch: Watch, log: KafkaLog, lines: Sequence[Line]) -> Played:
    began, kafka = time.monotonic(), await RawKafka.of(stage)
    scene, room = Scene(stage, watch, kafka), asyncio.Semaphore(AT_ONCE)

    async def one(line: Line) -> list[str]:
        async with room:
            try:
                return await scene.play(line)
            except OSError as error:
                return [f"{line.name}: nobody answers: {error!r}"]

    try:
        found = await asyncio.gather(*map(one, lines))
    finally:
        await kafka.close()
    answered = [each for answers in found for each in answers]
    stands = await rested(stage, log) + await wrong(stage, watch, log)
    stage.broken = "; ".join(stands)[:200]
    return Played(scene.sent, scene.untaken, [*answered, *stands], time.monotonic() - began)
