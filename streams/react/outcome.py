"""What came of a reaction over one event: what it emits, or why it failed, as records for the log."""

import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from schemas.envelope import Event
from schemas.errors import Poison, Retry
from schemas.rejected import REACTION_FAILED, Rejected
from schemas.topics import TopicNames
from streams.fairness.slices import unheard
from streams.fold.batch import NoEvent
from streams.fold.dead_letter import LIMITS, dead_letter
from streams.log.outgoing import to_outgoing
from streams.log.port import Outgoing, Record
from streams.react.emitted import Emitting
from streams.react.reaction import Reaction
from streams.react.thread import OwnThread
from streams.state.refusal import said

PAUSES = (0.5, 1.0, 2.0)
"""Seconds before each further try, where the error says that the world was in the way."""
AGAIN = (Retry, ConnectionError, TimeoutError)

Sleep = Callable[[float], Awaitable[None]]


class Cause(NamedTuple):
    """A record, and the event in it that is reacted to."""

    record: Record
    event: Event


class Ran(NamedTuple):
    """It came to its end."""

    records: Sequence[Outgoing]


class Failed(NamedTuple):
    why: str


class Trying(NamedTuple):
    """What a reaction is tried with."""

    reaction: Reaction
    names: TopicNames
    thread: OwnThread
    sleep: Sleep
    beat: Callable[[], None] = unheard


async def reacted(trying: Trying, cause: Cause) -> Ran | Failed:
    """In bounded time, whatever it does. What a try emitted that failed is forgotten."""
    for pause in (*PAUSES, None):
        emitting = Emitting(trying.reaction, trying.names, cause.record, cause.event)
        error = await _tried(trying, emitting, cause.event)
        emitting.end()
        if error is None:
            return Ran(emitting.records)
        if pause is None or not isinstance(error, AGAIN):
            return Failed(f"{said(error)}{_place_of(error, trying.reaction)}")
        await trying.sleep(pause)
    raise AssertionError("the last try has no pause")


async def _tried(trying: Trying, emitting: Emitting, event: Event) -> BaseException | None:
    reaction = trying.reaction
    return await trying.thread.run(lambda: reaction.call(event, emitting), reaction.seconds, trying.beat)


def letters(reaction: Reaction, names: TopicNames, cause: Cause, why: str) -> Iterator[Outgoing]:
    """The letter of a failure, each time with less of its record: the topic may take less than it does by our table."""
    record, event = cause
    rejected = Rejected(REACTION_FAILED, f"{reaction}: {why}", record.origin)
    said = {"id": reaction.letter_id(record.origin), "company": event.company, "causation": event.id}
    return burials(NoEvent(record, rejected), names, **said, correlation=event.correlation)


def burials(refused: NoEvent, names: TopicNames, **said: str) -> Iterator[Outgoing]:
    """`said`: what the letter says otherwise than that of a fold."""
    for limit in LIMITS:
        with suppress(Poison):
            yield to_outgoing(msgspec.structs.replace(dead_letter(refused, limit), **said), names)


def _place_of(error: BaseException, reaction: Reaction) -> str:
    """The line of the reaction's own file that it came through last."""
    own = getattr(reaction.call, "__code__", None)
    frames = [each for each in traceback.extract_tb(error.__traceback__) if own and each.filename == own.co_filename]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
