"""An application's event in every form that a record may have: typed, Avro, JSON, and cells of a file."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rillfold.app.found import with_apps
from rillfold.cli.events.topics import _rows
from rillfold.produce.rows import CsvFields
from schemas.codec.codec import decode, encode
from schemas.codec.json_form import event_of_fields
from schemas.envelope import Origin
from schemas.rejected import Rejected
from schemas.topics import TopicNames
from streams.log.memory import MemoryLog

HERE = Origin("company-data", 0, 0)
SOLD = """
from schemas.words import Name, Text

class Line(msgspec.Struct, frozen=True, kw_only=True):
    sku: Name
    pieces: int = 1
    note: Text | None = None

@app.event("{type}")
class Sold:
    '''Something was sold.'''

    till: Name
    said: str = ""
    lines: tuple[Line, ...] = ()
    first: Line | None = None
    tags: tuple[str, ...] = ("new",)
    share: float = 0.5
    cash: bool = False
    picture: bytes
    by: str | None = None

    @property
    def pieces(self):
        return sum(line.pieces for line in self.lines)
"""
FULL: dict[str, Any] = {
    "till": "north", "said": "Grüße", "lines": [{"sku": "a", "pieces": 2}, {"sku": "b", "note": "n"}],
    "first": {"sku": "a"}, "tags": [], "share": 0.25, "cash": True, "picture": "AAE=", "by": "me",
}  # fmt: skip


@pytest.fixture(scope="module")
def types() -> Any:
    return iter(f"sold.n{n}" for n in range(100))


@pytest.fixture
def sold(release: Any, types: Any) -> Any:
    """Its name on the wire; its class is there."""
    type_ = next(types)
    app = release(SOLD.replace("{type}", type_))
    app.record()
    with_apps([app])
    return type_


def given(type_: str, **fields: Any) -> dict[str, Any]:
    return {"type": type_, "company": "acme", "id": "1", "time": 7, **fields}


@pytest.mark.parametrize("fields", [{"till": "north", "picture": ""}, FULL], ids=["least", "full"])
def test_it_is_the_same_event_in_every_form(fields: dict[str, Any], sold: str) -> None:
    event: Any = event_of_fields(given(sold, **fields), lambda: "none", 0)
    assert decode(encode(event), HERE, 0) == event
    assert decode(msgspec.json.encode(given(sold, **fields)), HERE, 0) == event
    assert event.pieces == (3 if fields is FULL else 0)


def test_a_word_outside_its_kind_is_refused(sold: str) -> None:
    refused = decode(msgspec.json.encode(given(sold, till="a/b", picture="")), HERE, 0)
    assert isinstance(refused, Rejected) and (refused.reason, "till" in refused.detail) == ("bad_word", True)


def test_cells_of_a_file_are_typed_by_its_fields(sold: str) -> None:
    read = CsvFields(["till", "share", "cash", "tags", "picture"], {"type": sold, "company": "acme"})
    event: Any = event_of_fields(read(b'north,0.75,true,"[""x""]","""AA=="""'), lambda: "1", 7)
    assert (event.share, event.cash, event.tags) == (0.75, True, ("x",))


async def test_it_is_listed_with_its_topic(sold: str) -> None:
    rows = {row["topic"]: str(row["events"]).split(", ") for row in await _rows(MemoryLog(), TopicNames())}
    assert sold in rows["company-data"] and "text.ingested" in rows["company-data"]
    assert sold not in rows["tool-call"]
