"""A user's kind of auth: taken beside ours, and refused by its place where it is none."""

from __future__ import annotations

from typing import Any

import pytest

from rillfold.app.errors import BadApp
from rillfold.app.found import with_apps
from streams.bridge.signing import ToolRequest

SIGN = "@app.auth({})\n{}\n"
FORM = 'def signed(secret, request, now): return {"X-Key": secret + request.method + str(now)}'
WRONG = {
    "no_parentheses": ("@app.auth\n" + FORM, ["@app.auth", "in parentheses"]),
    "a_coroutine": (SIGN.format('"signed"', "async " + FORM), ["no plain function"]),
    "no_function": (SIGN.format('"signed"', "class S: ..."), ["no plain function"]),
    "two_arguments": (SIGN.format('"signed"', "def s(secret, request): ..."), ["a secret, a request and the time"]),
    "name_of_ours": (SIGN.format('"bearer"', FORM), ["'bearer'", "Rillfold has one"]),
    "name_of_no_form": (SIGN.format('"Signed!"', FORM), ["'Signed!'", "lower letters"]),
    "name_twice": (2 * SIGN.format('"signed"', FORM), ["'signed'", "already in shop"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_kind_that_is_wrong_is_named_with_its_place(case: str, refused: Any) -> None:
    refused(*WRONG[case])


def test_a_kind_that_is_right_is_there(load: Any) -> None:
    kind = load(SIGN.format('"signed"', FORM)).auths["signed"]
    assert kind.sign("s", ToolRequest("GET", "http://h/", b"", "k"), 7) == {"X-Key": "sGET7"}


def test_two_applications_with_a_kind_of_one_name(release: Any) -> None:
    with pytest.raises(BadApp, match="another application's"):
        with_apps([release(SIGN.format('"signed"', FORM)) for _ in range(2)])
