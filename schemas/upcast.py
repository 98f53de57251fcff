"""Old versions lifted one step at a time. Each step is pure and takes all fields of its version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from schemas.envelope import Kind

Fields = dict[str, Any]
UPCASTERS: Mapping[Kind, Callable[[Fields], Fields]] = {}


def lift(kind: Kind, fields: Fields, newest: int) -> Fields:
    """The same facts as the newest version would have written them."""
    for version in range(kind.version, newest):
        fields = UPCASTERS[Kind(kind.type, version)](fields)
    return fields | {"type": kind.type, "version": newest} if kind.version < newest else fields
