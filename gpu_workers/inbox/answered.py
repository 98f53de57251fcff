"""Which requests have their result in the log. A result has its request's key: it lies in the same partition number."""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence

from gpu_workers.inbox.inbox import Item
from schemas.codec.codec import decode
from schemas.inference import InferenceCompleted, InferenceFailed
from schemas.topics import BY_NAME, TopicNames
from streams.log.port import BATCH_LIMIT, EventLog, Outgoing, Position, Record, TopicPartition, record_limit, size_of

RESULTS = "inference-result"
REMEMBERED = 10_000
"""So many answered requests of a partition are remembered at least, to know a request that comes twice."""
SINCE = "rillfold-results-since"
"""Header of a result: from this offset of its partition on lie the results of all requests that its writer had not
committed. The newest result says it to whoever takes the partition over, however far it is behind."""
MARK = 1_000

Asked = tuple[str, str]
"""Company and id of a request: two companies may choose the same id."""


class Partition:
    """What is known of one. No clock and no word of a request decides where to look."""

    def __init__(self, known: OrderedDict[Asked, None], since: int, end: int, asked_to: int) -> None:
        """`end` is that of the results, `asked_to` that of the requests: who was here before read no further."""
        self.known, self._end, self._asked_to = known, end, asked_to
        self._marks = deque([(0, since)])
        """From this request on, results lie at that offset or after it."""
        self._polled = 0

    @property
    def since(self) -> int:
        return self._marks[0][1]

    def polled(self, first: int, following: int) -> None:
        if first >= self._asked_to and self._end >= self._marks[-1][1] + MARK:
            self._marks.append((first, self._end))
        self._polled = following

    def committed(self, floor: int) -> None:
        while len(self._marks) > 1 and self._marks[1][0] <= floor:
            self._marks.popleft()

    def note(self, asked: Asked, end: int) -> None:
        """What is delivered again after a crash must all be known; when it has come, the newest are enough."""
        self.known[asked] = None
        self._end = max(self._end, end)
        while len(self.known) > REMEMBERED and self._polled >= self._asked_to:
            self.known.popitem(last=False)


class AnsweredRequests:
    def __init__(self, events: EventLog, names: TopicNames) -> None:
        self._log, self._results = events, names.wire(RESULTS)
        self._places: dict[TopicPartition, Partition] = {}

    async def open(self, place: TopicPartition) -> None:
        """Before anything is asked or told of it."""
        if place not in self._places:
            self._places[place] = await self._taken_over(place)

    def polled(self, place: TopicPartition, records: Sequence[Record]) -> None:
        self._places[place].polled(records[0].offset, records[-1].offset + 1)

    def knows(self, item: Item) -> bool:
        return (item.company, item.id) in self._places[item.place].known

    def note(self, item: Item, position: Position) -> None:
        """A request in the wrong partition has its result in the right one: that tells nothing of this one's end."""
        beside = position.partition == item.place[1]
        self._places[item.place].note((item.company, item.id), position.offset + 1 if beside else 0)

    def signed(self, place: TopicPartition, record: Outgoing) -> Outgoing:
        """A record that has no room for the header goes without: an older result says less, and nothing wrong."""
        since = str(self._places[place].since).encode()
        signed = record._replace(headers=(*record.headers, (SINCE, since)))
        return record if size_of(signed) > record_limit(BY_NAME[RESULTS].max_bytes or BATCH_LIMIT) else signed

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        for place in offsets.keys() & self._places.keys():
            self._places[place].committed(offsets[place])

    def clear(self) -> None:
        """After partitions were given out anew."""
        self._places.clear()

    async def _taken_over(self, place: TopicPartition) -> Partition:
        topic, partition = place
        asked_to = (await self._log.ends(topic))[partition]
        first, end = (
            (await self._log.starts(self._results))[partition],
            (await self._log.ends(self._results))[partition],
        )
        newest = max(first, end - REMEMBERED)
        known, since = await self._read(partition, newest, end)
        if since is not None and since < newest:
            older, _ = await self._read(partition, max(first, since), newest)
            known = OrderedDict([*older.items(), *known.items()])
        return Partition(known, newest if since is None else since, end, asked_to)

    async def _read(self, partition: int, start: int, stop: int) -> tuple[OrderedDict[Asked, None], int | None]:
        found: OrderedDict[Asked, None] = OrderedDict()
        since = None
        async for batch in self._log.read(self._results, partition, start, stop):
            for record in batch:
                event = decode(record.value, record.origin, record.timestamp, record.headers)
                if isinstance(event, InferenceCompleted | InferenceFailed):
                    found[event.company, event.request] = None
                    since = _since(record, since)
        return found, since


def _since(record: Record, before: int | None) -> int | None:
    said = [value for name, value in record.headers if name == SINCE and value.isdigit()]
    return int(said[-1][:18]) if said else before
