"""The modules of an application as texts, found without importing any: what they bind, and what they import.

Its own are its package, what is installed with that, and all that lies outside of installed packages, as modules do
that lie beside each other: no lock covers those.
"""

import ast
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import NamedTuple

OURS = frozenset({"gpu_workers", "processors", "projections", "rillfold", "schemas", "streams"})
INSTALLED = frozenset({"site-packages", "dist-packages"})


class Module(NamedTuple):
    """A module's text, and its statements by the names that they bind."""

    name: str
    path: Path
    lines: list[str]
    body: list[ast.stmt]
    bound: dict[str, list[ast.stmt]]

    def imports(self) -> Iterator[str]:
        """Whatever may be a module's name in it."""
        for node in (node for each in self.body for node in ast.walk(each)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from (f"{source_of(self, node)}.{alias.name}" for alias in node.names)


@cache
def module_of(name: str, top: str) -> Module | None:
    """None: it is not the application's own, whose package is `top`, or has no text."""
    path = _path(name) if name and _own(name.split(".")[0], top) else None
    if path is None:
        return None
    try:
        with tokenize.open(path) as file:
            text = file.read()
        body = ast.parse(text).body
    except (OSError, SyntaxError, ValueError):
        return None
    bound: dict[str, list[ast.stmt]] = {}
    for each in body:
        for bound_name in _bound(each):
            bound.setdefault(bound_name, []).append(each)
    # Not splitlines(), which splits at form feeds and others: lines are what the parser counts.
    return Module(name, path, text.split("\n"), body, bound)


def source_of(module: Module, each: ast.ImportFrom) -> str:
    """The module that something is imported from."""
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
    try:
        return resolve_name("." * each.level + (each.module or ""), package) if each.level else each.module or ""
    except ImportError:
        return ""


def binds(alias: ast.alias) -> str:
    return alias.asname or alias.name.split(".")[0]


def _bound(each: ast.stmt) -> set[str]:
    """Of a compound statement, all that anything within it binds."""
    if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {each.name}
    if isinstance(each, ast.Import | ast.ImportFrom):
        return set(map(binds, each.names))
    nodes = list(ast.walk(each))
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    imports = (node.names for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))
    return defined | stored | {binds(alias) for names in imports for alias in names}


@cache
def _own(name: str, top: str) -> bool:
    """Both are the first part of a module's name."""
    if name == top:
        return True
    places = [] if name in OURS or name in sys.stdlib_module_names else _places(name)
    if not any(INSTALLED & {*place.parts} for place in places):
        return bool(places)
    whose = packages_distributions()
    return bool({*whose.get(name, ())} & {*whose.get(top, ())})


def _path(name: str) -> Path | None:
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded is not None:
        return Path(loaded) if loaded.endswith(".py") else None
    first, *rest = name.split(".")
    for place in _places(first):
        under = place.joinpath(*rest)
        for each in (place, under / "__init__.py", under.parent / f"{under.name}.py")[bool(rest) :]:
            if each.is_file() and each.suffix == ".py":
                return each
    return None


@cache
def _places(name: str) -> list[Path]:
    """Of a module its file, of a package its folders. The first part of a name alone is found without an import."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    return list(map(Path, spec.submodule_search_locations or ([spec.origin] if spec.origin else [])))
