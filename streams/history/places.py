"""A company's own stretches of the log are read, and what lies between them is not fetched.

What one build reads, the next need not: how far a partition was read, and where whose records lie, is kept in a file.
It is a memory of the log and no part of it: without it, or with an older one, a build reads more and gives the same.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes, token_hex

import msgspec

from streams.errors import MissingOffsets
from streams.history.stretches import Landmark, Stretches
from streams.log.port import EventLog, Record

log = logging.getLogger(__name__)

SALT, SHA = 16, 32
"""Bytes of each. The salt nobody outside knows."""


class Places:
    """Nothing is kept where there is no folder for the folder, and everything is read."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    async def read(
        self, events: EventLog, topic: str, partition: int, start: int, stop: int, company: str
    ) -> AsyncIterator[Sequence[Record]]:
        """All that may be the company's of [start, stop), by the rules of `EventLog.read`."""
        known = await self._known(events, topic, partition, start)
        covered = max(start, min(known.next, stop))
        if covered > start:
            async for _ in events.read(topic, partition, start, start):  # raises where the log begins above it
                pass
        for begin, end in known.of(company, start, covered):
            async for batch in events.read(topic, partition, begin, end):
                yield batch
        learns = self._folder is not None and covered == known.next < stop
        try:
            async for batch in events.read(topic, partition, covered, stop):
                if learns:
                    known.learn(batch)
                yield batch
        finally:  # also what was read of one that is too long, or that nobody wants any more
            if learns:
                self._keep(topic, partition, known)

    async def _known(self, events: EventLog, topic: str, partition: int, start: int) -> Stretches:
        """What was kept of this very log, if that begins no later."""
        kept = self._kept(topic, partition)
        if kept is None or kept.first > start or not await _is_of(kept, events, topic, partition):
            return Stretches(token_bytes(SALT), start, start, {}, [])
        return kept

    def _kept(self, topic: str, partition: int) -> Stretches | None:
        if self._folder is None:
            return None
        path = _path(self._folder, topic, partition)
        try:
            sha, said = (whole := path.read_bytes())[:SHA], whole[SHA:]
            if sha != _sha(said):
                raise msgspec.ValidationError("it is not what was kept")
            return msgspec.msgpack.decode(said, type=Stretches)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be read, and is made anew: %s", path, error)
            return None

    def _keep(self, topic: str, partition: int, known: Stretches) -> None:
        """Whole or not at all. Who reads at the same time may keep less: then more is read once more."""
        if self._folder is None or not self._folder.parent.is_dir():
            return
        path = _path(self._folder, topic, partition)
        mine = path.with_suffix(f".{token_hex(8)}")
        try:
            path.parent.mkdir(exist_ok=True)
            said = msgspec.msgpack.encode(known)
            mine.write_bytes(_sha(said) + said)
            mine.replace(path)
        except OSError as error:
            with suppress(OSError):
                mine.unlink()
            log.warning("%s cannot be kept, so that the next build reads all again: %s", path, error)


def _sha(said: bytes) -> bytes:
    return sha256(said).digest()


def _path(folder: Path, topic: str, partition: int) -> Path:
    return folder / f"{topic}-{partition}.places"


async def _is_of(kept: Stretches, events: EventLog, topic: str, partition: int) -> bool:
    """A topic that was made anew, or is another broker's, does not hold what was seen last where it was seen."""
    if kept.last is None:
        return False
    at = kept.last.offset
    try:
        async for batch in events.read(topic, partition, at, at + 1):
            return Landmark.of(batch[0]) == kept.last
    except MissingOffsets:
        return False
    return False
