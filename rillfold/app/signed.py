"""A kind of credential made from a function."""

import re
from inspect import iscoroutinefunction, isfunction, isgeneratorfunction
from typing import TypeVar

from rillfold.app.errors import BadApp, place_of
from streams.bridge.credentials import KINDS
from streams.bridge.signing import AuthKind, Sign

Signing = TypeVar("Signing", bound=Sign)
LEGAL = re.compile(r"[a-z][a-z0-9_]{0,39}")
FORM = "def signed(secret: str, request: ToolRequest, now: int) -> dict[str, str]"


def kind_of_auth(function: Sign, name: str) -> AuthKind:
    where, of = place_of(function), f"auth {name!r}"
    if not isfunction(function) or iscoroutinefunction(function) or isgeneratorfunction(function):
        raise BadApp(f"{where}: {of} is no plain function: {FORM}.")
    if not LEGAL.fullmatch(name) or name in KINDS:
        why = "Rillfold has one" if name in KINDS else "take 1 to 40 lower letters, digits and _, a letter first"
        raise BadApp(f"{where}: a kind of auth cannot be named {name!r}: {why}.")
    if function.__code__.co_argcount != 3 or function.__code__.co_kwonlyargcount:
        raise BadApp(f"{where}: {of} takes a secret, a request and the time: {FORM}.")
    return AuthKind(name, where, function)
