"""The readers in C and in Python: where both read, they read the same; what C leaves alone, Python names."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import reader
from schemas.codec.catalog import StoredEvent, catalog
from schemas.codec.codec import encode
from schemas.envelope import Event
from tests.support.events import events

ROOT = Path(__file__).parents[2]
GOLDEN = sorted((ROOT / "tests" / "upgrade" / "wire").glob("*.json"))


class Left(Exception):
    """To Python."""


def leave(_b: bytes, _p: int) -> None:
    raise Left


def fast(entry: StoredEvent) -> Any:
    """The reader that folds use, on its own."""
    return reader.native.Reader(entry.plan, leave) if reader.IN_C else reader.compiled(entry.plan)


def result(read: Any, value: bytes) -> str | None:
    try:
        return repr(read(value, 10))
    except Exception:  # what it is refused for is the codec's suite to say
        return None


def stored(path: Path) -> Iterator[tuple[StoredEvent, bytes]]:
    for one in json.loads(path.read_text()):
        value = bytes.fromhex(one["value"])
        yield catalog().by_fingerprint[value[2:10]], value


def hurt(value: bytes) -> Iterator[bytes]:
    """Every bit turned, every end cut off, bytes of a long number pushed in, and a byte too much."""
    for at in range(10, len(value)):
        yield from (value[:at] + bytes([value[at] ^ 1 << bit]) + value[at + 1 :] for bit in range(8))
        yield value[:at]
        yield value[:at] + b"\x80" + value[at:]
        yield value[:at] + b"\xff" * 9 + value[at:]
    yield value + b"\0"


def test_the_reader_in_c_was_built_where_a_compiler_is() -> None:
    compiler = shutil.which((sysconfig.get_config_var("LDSHARED") or "").partition(" ")[0])
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    assert reader.IN_C or not (compiler and headers), "run make: it builds schemas/codec/native.c"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_stored_record_is_read_without_help_and_every_damage_to_it_alike(path: Path) -> None:
    for entry, value in stored(path):
        quick, thorough = fast(entry), reader.compiled(entry.plan)
        assert quick(value, 10) == thorough(value, 10)
        for other in hurt(value):
            found = result(quick, other)
            assert found is None or found == result(thorough, other), other.hex()


@given(events(), st.data())
@settings(max_examples=300)
def test_every_event_is_read_without_help_and_damage_alike(event: Event, data: st.DataObject) -> None:
    value = encode(event)
    entry = catalog().by_class[type(event)]
    assert result(fast(entry), value) == repr(event)
    at, more = data.draw(st.integers(10, len(value))), data.draw(st.binary(max_size=12))
    other = value[:at] + more + value[at + data.draw(st.integers(0, 4)) :]
    found = result(fast(entry), other)
    assert found is None or found == result(reader.compiled(entry.plan), other)


@pytest.mark.parametrize(
    "plan", [(), ("optional",), ("nothing",), ("array",), ("record", None, (), 7), ("optional", ("nothing",))]
)
def test_a_plan_that_is_none_is_refused(plan: tuple[Any, ...]) -> None:
    make = (lambda: reader.native.Reader(plan, leave)) if reader.IN_C else (lambda: reader.compiled(plan))
    with pytest.raises((ValueError, TypeError, LookupError)):
        make()


def test_the_codec_keeps_its_promises_without_a_compiler() -> None:
    """The same tests in a process that finds no `schemas.codec.native`."""
    files = [
        "tests/codec/test_codec_golden.py",
        "tests/codec/test_codec_rejects.py",
        "tests/codec/test_codec_properties.py",
    ]
    program = (
        "import sys; sys.modules['schemas.codec.native'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    )
    child = subprocess.run(
        [sys.executable, "-c", program, "-q", "-k", "not bomb and not fuzzing", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert child.returncode == 0, child.stdout[-3000:]
