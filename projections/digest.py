"""One hash for all rows of a projection: equal digests are equal rows, whoever folded them."""

import hashlib
from collections.abc import Mapping

import msgspec


def digest(rows: Mapping[int, Mapping[str, msgspec.Struct]]) -> str:
    """Rows by partition and key, in any order."""
    ordered = {str(partition): dict(sorted(rows[partition].items())) for partition in sorted(rows) if rows[partition]}
    return hashlib.sha256(msgspec.json.encode(ordered, order="sorted")).hexdigest()
