"""Adapters that can be served, each with the full identity of the run that made it."""

import re

import msgspec

from schemas.envelope import Event
from schemas.training import OffsetRange
from schemas.words import Adapter, Address, Id, Json, Label, Text

ROLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""An adapter is called company/role. A role names rows, too: nothing that could be taken for another's name."""


def company_of(adapter: str) -> str:
    return adapter.partition("/")[0]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Held-out exact match, before and after."""

    examples: int
    before: float
    after: float


class AdapterReady(Event, frozen=True, kw_only=True):
    """An adapter may be served from now on."""

    type: str = "adapter.ready"
    version: int = 2
    adapter: Adapter
    """Name within the company: company/role."""
    adapter_version: int
    run: Id
    sha256: Label
    """Content hash: names the artifact in the store."""
    uri: Address
    method: Label
    rank: int
    alpha: float
    base_model: Label
    base_sha256: Label
    manifest: Label
    """sha256 of the dataset manifest."""
    ranges: tuple[OffsetRange, ...]
    seed: int
    identity: Json
    """Everything else that decides the bytes (threads, instruction set, versions, settings), as canonical JSON text."""
    evaluation: Evaluation | None = None
    promoted: bool = True
    """Its role is answered by it from now on; else it answers by its version alone. Version 1 knew no gate."""


class AdapterJudged(Event, frozen=True, kw_only=True):
    """The gate's verdict on a version, said just before it is ready, with the numbers that it stands on."""

    type: str = "adapter.judged"
    adapter: Adapter
    adapter_version: int
    run: Id
    promoted: bool
    against: int | None = None
    """The version that answered until now; None: the base model."""
    reason: Label
    """What decided, in a word."""
    detail: Text = ""
    figures: Json
    """Everything that was measured and how far apart it was, as canonical JSON text."""


class AdapterRequested(Event, frozen=True, kw_only=True):
    """Somebody asks where an adapter is."""

    type: str = "adapter.requested"
    adapter: Adapter
    adapter_version: int | None = None
    requester: Text = ""


class RolloutDecided(Event, frozen=True, kw_only=True):
    """Which share of an adapter's requests a version answers from now on; another version answers the rest."""

    type: str = "rollout.decided"
    adapter: Adapter
    """company/role"""
    adapter_version: int
    percent: int
    """0: withdrawn. 100: it answers all."""
    reason: Text = ""
    """What it was decided by: a person, or figures such as success rate and latency."""
