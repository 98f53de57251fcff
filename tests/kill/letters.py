"""What the judge knows of letters: one for each refusal, the same one wherever its record is refused again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping

from schemas.codec.codec import decode
from schemas.rejected import RecordRedriven, RecordRejected
from streams.log.port import Record
from tests.kill.owners import Cause

Spot = tuple[str, int, int, int]
"""Topic, partition, offset and time: where a topic is made anew, another record may stand at a former one's offset."""
Named = tuple[str, bytes]
"""A letter's id, and what its record is known by: those of two such records have one id."""
NAMED = "rillfold-redriven"
"""The header by which a record that is sent again names its letter."""
Excused = Callable[[Spot, float, float], bool]
"""Whether what follows from the record there may have been said first and then again, in seconds."""


def spot_of(record: Record) -> Spot:
    return record.topic, record.partition, record.offset, record.timestamp


def _bytes_of(record: Record | RecordRejected) -> bytes:
    return repr((record.key, record.value)).encode()


class Letterbox:
    """The topic of dead letters, read once, and all that names a letter in the sources."""

    def __init__(self) -> None:
        self._by_spot: dict[Spot, RecordRejected] = {}
        self._told: dict[Spot, list[float]] = defaultdict(list)
        self._marks: Counter[tuple[str, Cause]] = Counter()
        self._sent: dict[Named, list[Spot]] = defaultdict(list)
        self.counts: Counter[str] = Counter()

    def put(self, record: Record) -> None:
        event = decode(record.value, record.origin, record.timestamp)
        assert isinstance(event, RecordRejected | RecordRedriven), event
        place = event.topic, event.partition, event.offset
        if isinstance(event, RecordRedriven):
            self._marks[event.causation or "", place] += 1
            return
        spot = (*place, event.timestamp)
        self.counts["letters"] += 1
        assert self._by_spot.setdefault(spot, event) == event, f"two letters about {spot} differ"
        self._told[spot].append(record.timestamp / 1000)

    def at(self, spot: Spot) -> RecordRejected | None:
        return self._by_spot.get(spot)

    def sent(self, record: Record) -> None:
        """Of each record of a source that names a letter."""
        for name, value in record.headers:
            if name == NAMED:
                self._sent[(value or b"").decode(), _bytes_of(record)].append(spot_of(record))

    def check(self, refused: Mapping[Spot, Record], seen: Collection[Spot]) -> None:
        """Whatever was refused has a letter with all its bytes; of what nobody has `seen` some may have one."""
        lacking, strange = set(seen) - self._by_spot.keys(), self._by_spot.keys() - refused.keys()
        assert not lacking, f"{len(lacking)} refused records lack a letter: {sorted(lacking)[:5]}"
        assert not strange, f"{len(strange)} letters lack a record: {sorted(strange)[:5]}"
        for spot, letter in self._by_spot.items():
            record = refused[spot]
            headers = tuple((header.key, header.value) for header in letter.headers)
            held = (letter.key, letter.value, headers, letter.timestamp)
            assert held == (record.key, record.value, record.headers, record.timestamp), spot
        self._check_sent()
        self.counts["letters twice"] = self.counts["letters"] - len(self._by_spot)
        self.counts["dead"] = len({letter.id for letter in self._by_spot.values()})

    def _check_sent(self) -> None:
        """A record that was sent again stands there once for each mark; refused again it has the letter it names."""
        letters = Counter((letter.id, spot[:3]) for spot, letter in self._by_spot.items())
        twice = [mark for mark, times in self._marks.items() if times > letters[mark]]
        assert not twice, f"{len(twice)} records were sent again twice from one place: {twice[:5]}"
        marks, sent = Counter[str](), Counter[str]()
        for (id_, _), times in self._marks.items():
            marks[id_] += times
        for (id_, _), sent_from in self._sent.items():
            sent[id_] += len(sent_from)
        assert marks == sent, (
            f"sent again and marked differ: {[id_ for id_ in marks | sent if marks[id_] != sent[id_]][:5]}"
        )
        spots: dict[Named, set[Spot]] = defaultdict(set)
        for spot, letter in self._by_spot.items():
            spots[letter.id, _bytes_of(letter)].add(spot)
        firsts: dict[str, list[Spot]] = defaultdict(list)
        for named, places in spots.items():
            first = places - set(self._sent.get(named, ()))
            # Where a topic was made anew, two records have stood at one offset, of the same bytes or of others.
            assert len({spot[:3] for spot in first}) == 1, (
                f"{named[0]} is the letter of {sorted(first)}, which nobody has sent again"
            )
            firsts[named[0]] += first
        for id_, stand in firsts.items():
            assert len({spot[:3] for spot in stand}) == 1, f"{id_} is the letter of other bytes at {sorted(stand)}"
        for mark in self._marks:
            assert letters[mark], f"{mark[0]} was sent again from {mark[1]}, where it was not refused"
        self.counts["sent again from letters"] = sum(sent.values())

    def check_repeats(self, excused: Excused) -> None:
        """Each letter stands there once, but for those that somebody still had in hand who was shut out."""
        twice = [(spot, first, again) for spot, (first, *more) in self._told.items() for again in more]
        strange = [repeat for repeat in twice if not excused(*repeat)]
        assert not strange, f"{len(strange)} letters were told again for no reason: {sorted(strange)[:5]}"
