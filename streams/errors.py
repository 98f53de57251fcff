"""What can go wrong between us and the log."""

from __future__ import annotations

from schemas.errors import Poison, Retry, Stop


class MissingOffsets(Stop):
    """Records that were asked for are not in the log."""

    def __init__(self, topic: str, partition: int, start: int, stop: int | None, first: int, end: int) -> None:
        wanted = f"[{start}, {'end' if stop is None else stop})"
        super().__init__(
            f"{topic}/{partition} holds offsets [{first}, {end}), not all of {wanted}. Raise the topic's retention "
            f"(`rillfold topics check`), restore the records from a backup, or ask for a range that is there."
        )
        self.topic, self.partition, self.start, self.stop, self.first, self.end = (
            topic,
            partition,
            start,
            stop,
            first,
            end,
        )


class Fenced(Retry):
    """The partition belongs to another member by now: drop what was in hand and poll again."""

    def __init__(self, group: str, partitions: object) -> None:
        super().__init__(
            f"Group {group} no longer gives us {partitions}: nothing was committed. Whoever owns the partition now "
            f"gets the records again; poll goes on."
        )
        self.group, self.partitions = group, partitions


class UnknownTopic(Stop):
    """The broker has no such topic."""

    def __init__(self, topic: str, where: str) -> None:
        super().__init__(f"Topic {topic} does not exist on {where}. Make it with `rillfold topics create`.")
        self.topic = topic


class TooLarge(Poison):
    """A record above the broker's limit."""

    def __init__(self, topic: str, size: int, limit: int) -> None:
        super().__init__(
            f"A record of {size} bytes for {topic} is above the limit of {limit}. Store the content elsewhere and "
            f"send a document.ingested event that points to it."
        )
        self.topic, self.size, self.limit = topic, size, limit


class Unreachable(Retry):
    """No broker answers."""

    def __init__(self, where: str, detail: object) -> None:
        super().__init__(
            f"Kafka at {where} does not answer ({detail}). Start it with `rillfold up`, or set "
            f"RILLFOLD_BOOTSTRAP_SERVERS to a broker that runs."
        )


class AppendFailed(Retry):
    """The broker did not take what was sent."""

    def __init__(self, topic: str, detail: str) -> None:
        super().__init__(
            f"Records for {topic} were not acknowledged ({detail}); some may stand in the log. "
            f"Append them again: their ids tell repeats apart."
        )
        self.topic = topic
