"""Where in one partition each company's records lie: a few stretches each, that may hold others' records as well.

Companies share `NAMES` lines by a salted hash, so nobody's keys make it larger, and who shares a line with whom cannot
be chosen from outside. What it says is where to look: whose a record is, its key says still.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

import msgspec

from streams.log.port import Record

NAMES = 4096
MOST = 64
"""Stretches of one line. What lies nearest together becomes one where there would be more."""
NEAR = 10_000
"""Offsets between two records that are read along: to begin reading anew costs as much."""


class Landmark(msgspec.Struct, frozen=True, array_like=True):
    """A record by which a log is known again."""

    offset: int
    timestamp: int
    sha: bytes

    @classmethod
    def of(cls, record: Record) -> "Landmark":
        said = b"\0".join((record.key or b"", record.value or b""))
        return cls(record.offset, record.timestamp, blake2b(said, digest_size=16).digest())


class Stretches(msgspec.Struct, array_like=True):
    """Of the offsets [first, next). Each line is start, stop, start, stop … in order."""

    salt: bytes
    first: int
    next: int
    lines: dict[int, list[int]]
    keyless: list[int]
    """Whose these are, only they themselves can say."""
    last: Landmark | None = None

    def learn(self, records: Sequence[Record]) -> None:
        """What was read from `next` on."""
        for record in records:
            name = (record.key or b"").partition(b"/")[0]
            _add(self.lines.setdefault(self._line(name), []) if record.key else self.keyless, record.offset)
        self.last, self.next = Landmark.of(records[-1]), records[-1].offset + 1

    def of(self, company: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """All that may be the company's of [start, stop), in order, none twice."""
        both = _pairs(self.lines.get(self._line(company.encode()), ())), _pairs(self.keyless)
        reached = start
        for begin, end in sorted(pair for pairs in both for pair in pairs):
            if max(begin, reached) < min(end, stop):
                yield max(begin, reached), min(end, stop)
                reached = min(end, stop)

    def _line(self, name: bytes) -> int:
        return int.from_bytes(blake2b(name, digest_size=4, key=self.salt).digest()) % NAMES


def _add(line: list[int], offset: int) -> None:
    if line and offset - line[-1] <= NEAR:
        line[-1] = offset + 1
        return
    line += (offset, offset + 1)
    if len(line) > 2 * MOST:
        line[:] = _fewer(line)


def _fewer(line: Sequence[int]) -> list[int]:
    """Half as many: the widest gaps stay."""
    gaps = list(zip(line[1:-1:2], line[2::2], strict=True))
    widest = sorted(gaps, key=lambda gap: gap[0] - gap[1])[: MOST // 2 - 1]
    return [line[0], *(edge for gap in sorted(widest) for edge in gap), line[-1]]


def _pairs(line: Iterable[int]) -> Iterator[tuple[int, int]]:
    edges = iter(line)
    return zip(edges, edges, strict=True)
