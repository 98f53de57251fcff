"""What is on record of an application holds: what departs from it is refused, by name, place and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rillfold.app.app import App
from rillfold.app.errors import BadApp
from rillfold.app.found import with_apps
from schemas.codec.codec import decode, encode
from schemas.envelope import Event, Origin
from tests.app.conftest import Release

FIRST = '@app.event("{type}", version={version})\nclass Paid:\n    """Paid."""\n    order: str\n    cents: int\n'
STATE = """
class Sum(msgspec.Struct, frozen=True):
    {fields}

@app.projection("sums", version={version})
def sums(state: Sum, event: RecordIngested) -> Sum: ...
"""


def first(type_: str, version: int = 1, more: str = "") -> str:
    return FIRST.format(type=type_, version=version) + more


def refused(app: App, *told: str) -> None:
    with pytest.raises(BadApp) as why:
        with_apps([app])
    assert not [each for each in told if each not in str(why.value)], why.value


def test_what_is_on_record_is_not_written_again(release: Release, tmp_path: Path) -> None:
    assert release(first("h.paid")).record() == ["h.paid.v1.avsc"]
    before = (tmp_path / "recorded" / "h.paid.v1.avsc").read_bytes()
    assert release(first("h.paid", more="    note: str = ''\n")).record() == []
    assert (tmp_path / "recorded" / "h.paid.v1.avsc").read_bytes() == before


def test_a_class_that_changed_under_its_version(release: Release) -> None:
    release(first("i.paid")).record()
    refused(release(first("i.paid", more="    note: str = ''\n")), "i.paid.v1", "version=2", ":13")


def test_a_schema_that_was_edited(release: Release, tmp_path: Path) -> None:
    app = release(first("j.paid"))
    app.record()
    file = tmp_path / "recorded" / "j.paid.v1.avsc"
    file.write_text(file.read_text().replace('"long"', '"double"'))
    refused(app, str(file), "was edited")


def test_a_version_below_the_one_on_record(release: Release) -> None:
    release(first("k.paid")).record()
    release(first("k.paid", 2, "    note: str = ''\n")).record()
    refused(release(first("k.paid")), "k.paid.v1 is older")


def test_a_version_that_breaks_compatibility_is_not_even_written(release: Release, tmp_path: Path) -> None:
    release(first("l.paid")).record()
    with pytest.raises(BadApp, match=r"l\.paid\.v2 cannot read what was written as l\.paid\.v1.*default"):
        release(first("l.paid", 2, "    note: str\n")).record()
    assert not (tmp_path / "recorded" / "l.paid.v2.avsc").exists()


def test_a_version_without_its_step(release: Release) -> None:
    release(first("m.paid")).record()
    second = release(first("m.paid", 2, "    note: str = ''\n"))
    second.record()
    refused(second, "nothing lifts m.paid.v1", "@app.upcast")


def test_what_an_older_version_wrote_is_read_and_lifted(release: Release) -> None:
    old = release(first("n.paid"))
    old.record()
    with_apps([old])
    (cls,) = old.events
    made: Any = cls
    value = encode(made(id="1", company="acme", time=1, correlation="1", order="o", cents=7))
    forget(cls)
    step = '@app.upcast("n.paid", 1)\ndef noted(old):\n    return old | {"note": "by post"}\n'
    new = release(first("n.paid", 2, "    note: str = ''\n") + step)
    new.record()
    with_apps([new])
    read: Any = decode(value, Origin("company-data", 0, 0), 0)
    (cls,) = new.events
    assert type(read) is cls and (read.order, read.cents, read.note, read.version) == ("o", 7, "by post", 2)
    given = decode(b'{"type":"n.paid","version":1,"company":"acme","order":"o","cents":1}', Origin("t", 0, 0), 0)
    assert isinstance(given, Event)


def forget(cls: type[Event]) -> None:
    """As if this process were the next release's."""
    from schemas.codec import catalog, codec
    from schemas.topics import TOPIC_OF

    del TOPIC_OF[cls]
    del catalog.ADDED[catalog.kind_of(cls)]
    for made in (catalog.classes, catalog.catalog, codec.readers):
        made.cache_clear()


def test_a_state_that_changed_under_its_version(release: Release) -> None:
    release(STATE.format(fields="n: int = 0", version=1)).record()
    changed = "n: int = 0\n    m: int = 0"
    refused(release(STATE.format(fields=changed, version=1)), "'sums'", "other fields", "version=2")
    with_apps([release(STATE.format(fields=changed, version=2))])


def test_a_projection_below_the_version_on_record(release: Release) -> None:
    release(STATE.format(fields="n: int = 0", version=2)).record()
    refused(release(STATE.format(fields="n: int = 0", version=1)), "'sums'", "version 2 is on record")
