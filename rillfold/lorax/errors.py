"""What goes wrong around agents on one model, by name."""

from collections.abc import Iterable

from schemas.errors import Poison, Retry, Stop


class LoRAxDisabled(Stop):
    """The environment says that this process serves no agents."""


class LoRAxState(Stop):
    """Asked at the wrong time: before the start, after the stop, or for a second start."""


class RoleRefused(Poison):
    """This adapter cannot be the role's: its folder, its files, its base or the role's name say why."""


class UnknownRole(Poison):
    """Nobody has this role, and the base does not stand in for it."""

    def __init__(self, role: str, there: Iterable[str]) -> None:
        names = ", ".join(sorted(there)) or "none yet"
        super().__init__(f"no agent has the role {role[:80]!r}; there are: {names}. Register it, or ask one of these.")


class WishRefused(Poison):
    """The call itself is wrong: a name that is no option, or a value that an option cannot have."""


class NotAnswered(Poison):
    """The engine gave no answer, and the same question will get none."""

    def __init__(self, role: str, reason: str, detail: str) -> None:
        super().__init__(f"{role} did not answer ({reason}): {detail}")
        self.reason = reason


class NotAnsweredNow(Retry):
    """The engine gave no answer this time: it is full, it stops, or its files were not to be had."""

    def __init__(self, role: str, reason: str, detail: str) -> None:
        super().__init__(f"{role} did not answer now ({reason}): {detail}")
        self.reason = reason
