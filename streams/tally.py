"""What a fold has done since it began, for whoever measures it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.envelope import Event
from schemas.rejected import RecordRejected
from streams.changelog import Rows
from streams.commit import Ports


@dataclass
class Tally:
    """Counts at the ports, so that the fold knows nothing of it."""

    rows: int = 0
    letters: int = 0

    def counting(self, ports: Ports) -> Ports:
        async def publish(events: Sequence[Event]) -> None:
            await ports.publish(events)
            self.letters += sum(isinstance(event, RecordRejected) for event in events)

        async def append(changelog: str, partition: int, rows: Rows) -> int | None:
            position = await ports.append(changelog, partition, rows)
            self.rows += len(rows) - 1  # less the marker
            return position

        return ports._replace(publish=publish, append=append)
