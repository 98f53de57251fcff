"""An application's text as a module of its own, in the folder that a command runs in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from rillfold.app.app import App
from rillfold.app.errors import BadApp
from rillfold.app.found import apps_of, with_apps
from rillfold.app.installed import Installed
from schemas.codec.catalog import ADDED, catalog, classes
from schemas.codec.codec import readers
from schemas.codec.upcast import UPCASTERS
from schemas.topics import BY_NAME, TOPIC_OF
from tests.support.folding import agree, kafka, started

__all__ = ["agree", "kafka", "started"]

HEAD = """
import json
import msgspec
from rillfold import App, Emit
from schemas.company import CompanyRegistered, RecordIngested
from schemas.inference import InferenceCompleted

app = App("shop")

class Total(msgspec.Struct, frozen=True):
    cents: int = 0

"""
MODULES = count()
Release = Callable[[str], App]
Load = Callable[[str], Installed]


@pytest.fixture(autouse=True)
def gone_again() -> Iterator[None]:
    """What an application adds is there as long as its process: here it goes with the test."""
    before = [(there, dict(there)) for there in (BY_NAME, TOPIC_OF, ADDED, UPCASTERS)]
    yield
    for there, as_it_was in before:
        there.clear()
        there.update(as_it_was)  # type: ignore[arg-type]
    for made in (classes, catalog, readers):
        made.cache_clear()


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    """(what it says after its head) -> the next release of one application, as far as its module goes."""

    def release(text: str) -> App:
        name = f"an_app_of_a_test_{next(MODULES)}"
        (tmp_path / f"{name}.py").write_text(HEAD + text)
        (app,) = apps_of(name)
        return app

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return release


@pytest.fixture
def load(release: Release) -> Load:
    """(what it says after its head) -> all that there is."""
    return lambda text: with_apps([release(text)])


@pytest.fixture
def refused(load: Load) -> Callable[[str, list[str]], None]:
    """(what it says, what is told of it): it is wrong, and named with its place."""

    def named(text: str, told: list[str]) -> None:
        with pytest.raises(BadApp) as error:
            load(text)
        assert not [each for each in [*told, "an_app_of_a_test_"] if each not in str(error.value)], error.value

    return named
