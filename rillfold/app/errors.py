"""What is wrong with an application, and where: said when it is loaded, before anything starts."""

import inspect
import traceback
from collections.abc import Callable
from typing import Any

from schemas.errors import Stop


class BadApp(Stop):
    """An application cannot be taken as it is."""


def place_of(thing: Callable[..., Any]) -> str:
    """File and line of a function or a class, as far as Python knows them."""
    code = getattr(thing, "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"
    except (OSError, TypeError):
        return f"{thing.__module__}.{getattr(thing, '__qualname__', thing)}"


def raised_at(error: BaseException) -> str:
    """Where the code that raised stands: a file that does not parse says so itself."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "its first line"
