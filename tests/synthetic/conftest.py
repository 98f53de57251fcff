"""Tools of a company that nobody has data of."""

from __future__ import annotations

import pytest

from processors.synthetic.definition import ToolDefinition
from tests.support.described import company_tools


@pytest.fixture
def tools() -> list[ToolDefinition]:
    return company_tools()
