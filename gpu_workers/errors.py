"""What goes wrong around models and adapters."""

import errno
from pathlib import Path

from schemas.errors import Poison, Retry, Stop

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""The disk is full, or what this user may have of it."""


class BaseModelMissing(Stop):
    """A base model is not where it was said to be."""


class BaseModelRefused(Stop):
    """A base model that we cannot load safely, or have no template for."""


class BaseNotServable(BaseModelRefused):
    """A base model of an architecture that is not served here, so no adapter is trained on it."""

    def __init__(self, base: Path, why: str) -> None:
        super().__init__(f"base model {base}: {why}.")
        self.why = why
        """Without its folder, which is the operator's business alone."""


class PromptDrift(Stop):
    """A training prompt differs from the inference prompt: training on it would be training for another model."""


class MessageRefused(Poison):
    """A conversation that no template can render."""


class ArtifactRefused(Stop):
    """An adapter whose bytes or shapes are not what its manifest says."""


class NotSigned(ArtifactRefused):
    """An adapter that none of the keys that count here has signed, or that is not what was signed."""


class SignerUnknown(NotSigned):
    """An adapter that somebody signed whose key is not known here: what he signed cannot be judged."""


class BadKey(Stop):
    """A file that should be a key, and is none that signs adapters."""


class StoreAway(Retry):
    """The adapter store is not to be had: it is away, answers too late, or this installation may not ask it."""


class StoreTakesNothing(Retry):
    """The adapter store is full or read-only. What was to be kept lies on this machine until a person mends that."""


class NoSuchStore(Stop):
    """An address of an adapter store that no installed package understands."""


class ArtifactMissing(Retry):
    """An adapter that the store does not hold (yet)."""


class NoAddress(Stop):
    """What was named as a model's URL is none."""


class ExportRefused(Stop):
    """An adapter or a base that would be another one in the file that it was to leave as."""


class LlamaCppFailed(Stop):
    """llama.cpp is not here, is too old, or does not take what it was given."""


class LlamaCppDied(Retry):
    """llama.cpp ended while it was asked; whoever asks again starts it again."""


class NotForLlamaCpp(Poison):
    """A question that llama.cpp cannot answer as it was put."""


class DatasetRefused(Stop):
    """Rows that cannot be trained on as they are."""


class Diverged(Stop):
    """A loss that is no number: nothing can be learned from there on."""


class BadSchedule(Stop):
    """Ranks cannot be reallocated in so many steps, or from such a rank."""


class BadPrecision(Stop):
    """Numbers of a kind that this machine cannot train with."""


class NoPairs(Stop):
    """Rows without a single answer that was corrected: DPO has nothing to tell apart."""


class OneSided(Stop):
    """Rows that are all good or all bad: KTO has nothing to tell apart."""


class ChildDied(Stop):
    """The process that trains ended without a word about why, or says what is none."""


class Unhealthy(Stop):
    """This machine trains nobody: a person must look, and no request is to blame."""
