"""Rillfold: from a company's events to adapters, and back."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from processors.dataset.lessons import Talk
    from rillfold.app.app import App
    from streams.bridge.signing import ToolRequest
    from streams.react.reaction import Emit

__version__ = "0.1.0"
__all__ = ["App", "Emit", "Talk", "ToolRequest"]

ROOMS = ("schemas", "projections", "processors", "streams", "gpu_workers")


class ShadowedRoom(ImportError):
    """A package of the same name stands before ours on the path."""


def _refuse_shadowed_rooms() -> None:
    """The rooms have generic names: a stranger's `schemas/` found first would break us in odd ways, so say it here."""
    home = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        spec = find_spec(room)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != home / room:
            where = found or (list(spec.submodule_search_locations or []) if spec else "nowhere")
            raise ShadowedRoom(
                f"the package {room!r} comes from {where}, not from Rillfold's own {home / room}. "
                "Run Rillfold from an environment of its own (make, uv tool install, the container image), "
                "or start it with `python -P -m rillfold` from another folder."
            )


_refuse_shadowed_rooms()


def __getattr__(name: str) -> Any:
    """Commands that need no application do not pay for it."""
    if name == "App":
        from rillfold.app.app import App

        return App
    if name == "Emit":
        from streams.react.reaction import Emit

        return Emit
    if name == "Talk":
        from processors.dataset.lessons import Talk

        return Talk
    if name == "ToolRequest":
        from streams.bridge.signing import ToolRequest

        return ToolRequest
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
