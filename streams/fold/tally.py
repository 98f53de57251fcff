"""What a fold has done since it began, for whoever measures it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.envelope import Event
from schemas.rejected import RecordRejected
from streams.fold.commit import Ports
from streams.state.changelog import Rows
from streams.state.refusal import Refusal


@dataclass
class Tally:
    """Counts at the ports, so that the fold knows nothing of it."""

    rows: int = 0
    letters: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By projection."""

    def counting(self, ports: Ports) -> Ports:
        async def publish(events: Sequence[Event]) -> None:
            await ports.publish(events)
            self.letters += sum(isinstance(event, RecordRejected) for event in events)

        async def append(changelog: str, partition: int, rows: Rows) -> int | None:
            position = await ports.append(changelog, partition, rows)
            self.rows += len(rows) - 1  # less the marker
            return position

        def refused(refused: Sequence[Refusal]) -> None:
            ports.refused(refused)
            self.rows -= len(refused)
            self.refused.update(each.projection for each in refused)

        return ports._replace(publish=publish, append=append, refused=refused)
