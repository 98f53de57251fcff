"""What the bodies of requests are made of. However wrong a body is, its faults are few: each costs time and memory.

So every list of a body says how long it may be, and ends at its first wrong item (`fail_fast`).
"""

from pydantic import BaseModel, ConfigDict, model_validator

NAMES = 128
MESSAGES = 4_096
PARTS = 4_096
TOOL_CALLS = 128


class Strict(BaseModel):
    """Each name that it does not have is a fault, so it is not shown to more than a few."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_names(cls, given: object) -> object:
        if isinstance(given, dict) and len(given) > NAMES:
            raise ValueError(f"an object here has at most {NAMES} names, not {len(given)}")
        return given
