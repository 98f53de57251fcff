"""An upgrade of Faust or aiokafka that moves a line we lean on fails here, and says which."""

from __future__ import annotations

import inspect
from functools import reduce
from importlib import import_module

import faust
import pytest
from mode.services import ServiceTask

from streams.faust_seam import FAUST_VERSION, RELIES_ON


def test_the_installed_faust_is_the_one_that_was_read():
    assert faust.__version__ == FAUST_VERSION, "read streams/faust_seam.py against the new version, then raise it there"


@pytest.mark.parametrize("name", RELIES_ON)
def test_the_upstream_lines_that_the_seam_relies_on_are_there(name: str):
    module, _, path = name.partition(":")
    found = reduce(getattr, path.split("."), import_module(module))
    if isinstance(found, property):
        found = found.fget
    elif isinstance(found, ServiceTask):
        found = found.fun
    source = inspect.getsource(found)
    for line in RELIES_ON[name]:
        assert line in source, f"{name} no longer says {line!r}"
