"""What a company may ask for at once and in a while. Decided before any work is done for it."""

from __future__ import annotations

from math import ceil, inf

import msgspec

BURST_SECONDS = 10.0
"""What was not used for so long may be used at once."""
MINUTE = 60.0


class CompanyBounds(msgspec.Struct, frozen=True, kw_only=True):
    """For each company."""

    at_once: int
    """Requests under way: also those that wait, and streams."""
    a_second: float
    bytes_a_minute: int
    prompts: int
    """Questions to a model under way, among the requests."""

    @property
    def burst(self) -> float:
        """One request fits at the slowest rate, too: else it would be told to come again for ever."""
        return max(1.0, self.a_second * BURST_SECONDS)

    @property
    def bytes_a_second(self) -> float:
        return self.bytes_a_minute / MINUTE


class RequestCost(msgspec.Struct, frozen=True):
    """Of one request, as far as its head says."""

    bytes: int = 0
    prompt: bool = False
    requests: int = 1
    """As many as it is as much as."""


class Bucket(msgspec.Struct, frozen=True):
    """Full at first; refilled as time goes by."""

    left: float = inf
    at: float = 0.0

    def filled(self, size: float, a_second: float, now: float) -> Bucket:
        return Bucket(min(size, self.left + max(0.0, now - self.at) * a_second), now)

    def wait(self, wanted: float, size: float, a_second: float, now: float) -> int:
        """Whole seconds until it holds as much, zero if it does now. `wanted` is `size` at most."""
        missing = wanted - self.filled(size, a_second, now).left
        if missing <= 0:
            return 0
        seconds = ceil(missing / a_second)
        # Sums of floats may fall a hair short then: the same sum that admits is asked.
        return seconds + (self.filled(size, a_second, now + seconds).left < wanted)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one company uses now, and has used lately."""

    at_once: int = 0
    prompts: int = 0
    requests: Bucket = Bucket()
    bytes: Bucket = Bucket()


class Busy(msgspec.Struct, frozen=True):
    """Not now."""

    reason: str
    """too_many_at_once, too_many_prompts, too_often or too_many_bytes."""
    retry_after: int
    """Seconds, at least one: by then no rate stands in the way, whatever the reason was."""


def admit(usage: Usage, cost: RequestCost, bounds: CompanyBounds, now: float) -> Usage | Busy:
    """The usage with the request in it, or why not and when to come again."""
    burst, bytes_a_second = bounds.burst, bounds.bytes_a_second
    # A body larger than a minute's bytes is let in when nothing else was sent.
    wanted = min(cost.bytes, bounds.bytes_a_minute)
    often = usage.requests.wait(min(cost.requests, burst), burst, bounds.a_second, now)
    much = usage.bytes.wait(wanted, bounds.bytes_a_minute, bytes_a_second, now)
    reason = _reason(usage, cost, bounds, often, much)
    if reason is not None:
        return Busy(reason, max(1, often, much))
    requests = usage.requests.filled(burst, bounds.a_second, now)
    sent = usage.bytes.filled(bounds.bytes_a_minute, bytes_a_second, now)
    return Usage(
        at_once=usage.at_once + 1,
        prompts=usage.prompts + cost.prompt,
        requests=Bucket(requests.left - cost.requests, now),
        bytes=Bucket(sent.left - cost.bytes, now),
    )


def charged(usage: Usage, more: int, bounds: CompanyBounds, now: float) -> Usage | Busy:
    """What one request asks for beyond the one that was counted: it is worked off before the next is let in. Those that
    were let in beside it and ask for more only now are as the next."""
    filled = usage.requests.filled(bounds.burst, bounds.a_second, now)
    if more and filled.left < 0:
        return Busy("too_often", max(1, filled.wait(1, bounds.burst, bounds.a_second, now)))
    return msgspec.structs.replace(usage, requests=Bucket(filled.left - more, now))


def finished(usage: Usage, cost: RequestCost, unsent: int) -> Usage:
    """`unsent` bytes were counted and never came."""
    sent = Bucket(usage.bytes.left + unsent, usage.bytes.at)
    return msgspec.structs.replace(usage, at_once=usage.at_once - 1, prompts=usage.prompts - cost.prompt, bytes=sent)


def forgettable(usage: Usage, bounds: CompanyBounds, now: float) -> bool:
    """Nothing is under way and all buckets are full again: as if it had never been seen."""
    asked = usage.requests.filled(bounds.burst, bounds.a_second, now)
    sent = usage.bytes.filled(bounds.bytes_a_minute, bounds.bytes_a_second, now)
    return usage.at_once == 0 and asked.left >= bounds.burst and sent.left >= bounds.bytes_a_minute


def _reason(usage: Usage, cost: RequestCost, bounds: CompanyBounds, often: int, much: int) -> str | None:
    if usage.at_once >= bounds.at_once:
        return "too_many_at_once"
    if cost.prompt and usage.prompts >= bounds.prompts:
        return "too_many_prompts"
    if often:
        return "too_often"
    return "too_many_bytes" if much else None
