"""What a function is: its text, and that of all in its package which it names, and which these name.

Text and no bytecode, which differs from Python to Python. Other packages count by the names that are imported of them.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any, NamedTuple

from rillfold.app.errors import BadApp, place_of

EVERYTHING = "*"
"""Of an import. A name that nothing binds may come of it."""


class Module(NamedTuple):
    """A module's text, and its statements by the names that they bind."""

    name: str
    lines: list[str]
    bound: dict[str, list[ast.stmt]]


def code_of(function: Callable[..., Any]) -> str:
    """sha256, the same wherever this code lies. Raises `BadApp` where it is no function of a module with a text."""
    where = place_of(function)
    if function.__qualname__ != function.__name__:
        raise BadApp(f"{where}: {function.__qualname__} is made inside of another: define it in its module.")
    module = _module(function.__module__)
    first = function.__code__.co_firstlineno
    found = [each for each in module.bound.get(function.__name__, ()) if _first_line(each) == first] if module else []
    if not module or not found:
        raise BadApp(f"{where}: the text of {function.__name__} cannot be read in {function.__module__}.")
    reached = sorted({*_reached(module, found[0], set(), decorators=False)})
    return sha256("\0".join([_text(module, found[0], decorators=False), *reached]).encode()).hexdigest()


def _reached(module: Module, each: ast.stmt, seen: set[tuple[str, str]], decorators: bool = True) -> Iterator[str]:
    """The texts of all that a statement names, imports inside of it too."""
    for name in _names(each, decorators):
        yield from _followed(module, name, seen)
    for node in ast.walk(each):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield from _imported(module, node, _binds(alias), seen)


def _followed(module: Module, name: str, seen: set[tuple[str, str]]) -> Iterator[str]:
    if (module.name, name) in seen:
        return
    seen.add((module.name, name))
    known = name if name in module.bound else EVERYTHING
    for each in module.bound.get(known, ()):
        if isinstance(each, ast.Import | ast.ImportFrom):
            yield from _imported(module, each, known, seen)
        elif not _is_event(each):
            yield _text(module, each)
            yield from _reached(module, each, seen)


def _imported(
    module: Module, each: ast.Import | ast.ImportFrom, name: str, seen: set[tuple[str, str]]
) -> Iterator[str]:
    """Of our own package its text: one name's, or a whole module's where that is what is named."""
    alias = next(alias for alias in each.names if _binds(alias) == name)
    source = _source(module, each) if isinstance(each, ast.ImportFrom) else ""
    whole = source if name == EVERYTHING else f"{source}.{alias.name}".lstrip(".")
    if whole.split(".")[0] != module.name.split(".")[0]:
        yield f"{whole} as {name}"
    elif source and (of := _module(source)) and alias.name in of.bound:
        yield from _followed(of, alias.name, seen)
    elif of := _module(whole):
        yield "\n".join(of.lines)
        for other in of.bound:
            yield from _followed(of, other, seen)


def _source(module: Module, each: ast.ImportFrom) -> str:
    spec = find_spec(module.name)
    package = module.name if spec and spec.submodule_search_locations else module.name.rpartition(".")[0]
    return resolve_name("." * each.level + (each.module or ""), package) if each.level else each.module or ""


@cache
def _module(name: str) -> Module | None:
    try:
        path = getattr(sys.modules.get(name), "__file__", None) or getattr(find_spec(name), "origin", None)
    except (ImportError, ValueError):
        return None
    if path is None or not path.endswith(".py"):
        return None
    text = Path(path).read_text(encoding="utf-8")
    bound: dict[str, list[ast.stmt]] = {}
    for each in ast.parse(text).body:
        for bound_name in _bound(each):
            bound.setdefault(bound_name, []).append(each)
    return Module(name, text.splitlines(), bound)


def _is_event(each: ast.stmt) -> bool:
    """Its fields have versions of their own, on record beside."""
    above = each.decorator_list if isinstance(each, ast.ClassDef) else ()
    return any(isinstance(one, ast.Call) and getattr(one.func, "attr", "") == "event" for one in above)


def _bound(each: ast.stmt) -> set[str]:
    """Of a compound statement, all that anything within it binds."""
    if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {each.name}
    if isinstance(each, ast.Import | ast.ImportFrom):
        return set(map(_binds, each.names))
    nodes = list(ast.walk(each))
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    imports = (node.names for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))
    return defined | stored | {_binds(alias) for names in imports for alias in names}


def _binds(alias: ast.alias) -> str:
    return alias.asname or alias.name.split(".")[0]


def _names(each: ast.stmt, decorators: bool = True) -> list[str]:
    """All that it reads, in their order: whose own they are, the module's bindings tell. Annotations decide nothing."""
    above = [] if decorators else [*getattr(each, "decorator_list", ())]
    for node in ast.walk(each):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            above.append(node.returns)
        elif isinstance(node, ast.arg):
            above.append(node.annotation)
    skipped = {id(node) for one in above if one is not None for node in ast.walk(one)}
    names = (node.id for node in ast.walk(each) if isinstance(node, ast.Name) and id(node) not in skipped)
    return list(dict.fromkeys(names))


def _text(module: Module, each: ast.stmt, decorators: bool = True) -> str:
    first = _first_line(each) if decorators else each.lineno
    return "\n".join(line.rstrip() for line in module.lines[first - 1 : each.end_lineno])


def _first_line(each: ast.stmt) -> int:
    above: list[ast.expr] = getattr(each, "decorator_list", [])
    return min(each.lineno, *(one.lineno for one in above)) if above else each.lineno
