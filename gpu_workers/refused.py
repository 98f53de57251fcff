"""Why a question got no answer. `reason` is machine readable and ends in inference.failed and in HTTP errors."""

from schemas.errors import Poison, Retry


class Refused(Poison):
    """This question can never be answered as it was put."""

    reason = "refused"


class UnknownAdapter(Refused):
    reason = "unknown_adapter"


class UnknownVersion(Refused):
    reason = "unknown_adapter_version"


class WithdrawnVersion(Refused):
    """It was withdrawn: nobody is answered by it any more, however he asks."""

    reason = "adapter_withdrawn"


class NotPromoted(Refused):
    """No version answers for the name; those that there are answer by their number."""

    reason = "not_promoted"


class UnusableAdapter(Refused):
    """The artifact is damaged, of another base, or asks for something that the engine does not compute."""

    reason = "unusable_adapter"


class BaseMismatch(UnusableAdapter):
    reason = "base_mismatch"


class UnsupportedModel(Refused):
    reason = "unsupported_model"


class PromptTooLong(Refused):
    reason = "prompt_too_long"


class TooLong(Refused):
    """Prompt and answer together are more than the KV cache may ever hold for one row."""

    reason = "too_long"


class BadQuestion(Refused):
    reason = "bad_question"


class NotActivated(Refused):
    """The adapter acts from a trigger on, and the prompt does not hold it."""

    reason = "not_activated"


class NotFinite(Refused):
    """The model's numbers overflowed: there is no likeliest token."""

    reason = "not_finite"


class TooLate(Refused):
    """Its time was over before it was answered."""

    reason = "too_late"


class RowFailed(Refused):
    """This row cannot be computed, alone or with others; the engine works."""

    reason = "row_failed"


class QueueFull(Retry):
    """The engine holds as many questions as it may."""

    reason = "queue_full"


class TooFast(Retry):
    """The company has used its tokens of this minute up."""

    reason = "too_fast"

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class AdapterUnreadable(Retry):
    """Its files are not there, or the disk does not give them."""

    reason = "adapter_unreadable"


class EngineStopped(Retry):
    """Nothing is answered any more: the process ends, and the next one answers."""

    reason = "engine_stopped"
