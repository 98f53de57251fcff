"""What there is: ours, and what the applications of this installation add. Made once, at the edge, and passed on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from processors.dataset.taught import Rule
from projections.catalog import PROJECTIONS
from projections.projection import Projection
from rillfold.settings import Settings
from streams.react.reaction import Reaction

if TYPE_CHECKING:  # it brings an HTTP client along
    from streams.bridge.signing import AuthKind

GROUP = "rillfold.apps"


@dataclass(frozen=True)
class Installed:
    projections: Mapping[str, Projection[Any]]
    reactions: Sequence[Reaction] = ()
    rules: Mapping[str, Rule] = field(default_factory=dict)
    auths: "Mapping[str, AuthKind]" = field(default_factory=dict)


OURS = Installed(PROJECTIONS)


def installed(settings: Settings) -> Installed:
    """Raises `BadApp` where an application cannot be taken, with its name, the place and the remedy."""
    return _installed(settings.app)


@cache
def _installed(word: str | None) -> Installed:
    if word == "" or (word is None and not entry_points(group=GROUP)):
        return OURS
    from rillfold.app.found import apps_of, with_apps  # who has no application does not pay for it

    return with_apps(apps_of(word))
