"""What a function is: its text, that of all in its application which it names, and of what changes any of it on import.

Text and no bytecode, which differs from Python to Python. Other packages count by the names that are imported of them.
"""

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from hashlib import sha256
from typing import Any

from rillfold.app.errors import BadApp, place_of
from rillfold.app.sources import Module, binds, module_of, source_of

EVERYTHING = "*"
"""Of an import. A name that nothing binds may come of it."""
DECLARES = frozenset({"event", "upcast", "topic", "projection", "reaction", "rule", "auth"})
"""What an application is told of itself changes no function. Events and their steps have versions."""


def code_of(function: Callable[..., Any]) -> str:
    """sha256, the same wherever this code lies. Raises `BadApp` where it is no function of a module with a text."""
    where = place_of(function)
    if function.__qualname__ != function.__name__:
        raise BadApp(f"{where}: {function.__qualname__} is made inside of another: define it in its module.")
    top = function.__module__.split(".")[0]
    module = module_of(function.__module__, top)
    first = function.__code__.co_firstlineno
    found = [each for each in module.bound.get(function.__name__, ()) if _first_line(each) == first] if module else []
    if not module or not found:
        raise BadApp(f"{where}: the text of {function.__name__} cannot be read in {function.__module__}.")
    reach = _Reach(top)
    reach.follow(module, found[0], decorators=False)
    for taken in _annotations(found[0]):
        reach.follow(module, taken)
    _with_effects(reach, _effects(module, top), _Reach(top))
    own = _text(module, found[0], decorators=False)
    return sha256("\0".join([own, *reach.said()]).encode()).hexdigest()


Node = tuple[str, str]
"""A module, and a name in it."""


class _Reach:
    """All that statements name, and what that names. `top`: the application's own package, or module."""

    def __init__(self, top: str) -> None:
        self._top = top
        self._at: Node = ("", "")
        self._wait: list[tuple[Node, Module]] = []
        self._above: dict[Node, set[Node]] = {}
        """What names it."""
        self.names: set[Node] = set()
        """Those of them that a module binds itself, and does not import."""
        self._texts: dict[str, set[tuple[int, str]]] = {}
        """By module, in the order in which they are met. Within, the order of the lines decides."""

    def said(self) -> Iterator[str]:
        for texts in self._texts.values():
            yield from (text for _, text in sorted(texts))

    def take(self, module: Module, each: ast.stmt) -> None:
        self._say(module, each.lineno, _text(module, each))
        self.follow(module, each)

    def follow(self, module: Module, each: ast.AST, decorators: bool = True, at: Node = ("", "")) -> None:
        self._at = at
        self._see(module, each, decorators)
        while self._wait:
            self._at, of = self._wait.pop()
            self._bound(of, self._at[1])

    def whence(self, names: Iterable[Node]) -> set[Node]:
        """All that name one of these, or what names one."""
        found, wait = set[Node](), [*names]
        while wait:
            more = self._above.get(wait.pop(), set()) - found
            found |= more
            wait += more
        return found

    def _see(self, module: Module, each: ast.AST, decorators: bool = True) -> None:
        """Imports inside of it, too."""
        for name in _names(each, decorators):
            self._name(module, name)
        for node in ast.walk(each):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    self._import(module, node, alias)

    def _say(self, module: Module, line: int, text: str) -> None:
        self._texts.setdefault(module.name, set()).add((line, text))

    def _name(self, module: Module, name: str) -> None:
        node = (module.name, name)
        if node not in self._above:
            self._wait.append((node, module))
        self._above.setdefault(node, set()).add(self._at)

    def _bound(self, module: Module, name: str) -> None:
        known = name if name in module.bound else EVERYTHING
        for each in module.bound.get(known, ()):
            if isinstance(each, ast.Import | ast.ImportFrom):
                for alias in each.names:
                    if binds(alias) == known:
                        self._import(module, each, alias)
                continue
            self.names.add((module.name, name))
            if isinstance(each, ast.ClassDef) and _declared(module, each, self._top):
                self._event(module, each)
            else:
                self._say(module, each.lineno, _text(module, each))
                self._see(module, each)

    def _event(self, module: Module, each: ast.ClassDef) -> None:
        """Its fields are on record beside; what it does is not."""
        body = [one for one in each.body if not isinstance(one, ast.AnnAssign)]
        parts: list[ast.expr | ast.stmt] = [*each.bases, *body]
        for part in parts:
            if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)):
                self._say(module, part.lineno, _text(module, part))
                self._see(module, part)

    def _import(self, module: Module, each: ast.Import | ast.ImportFrom, alias: ast.alias) -> None:
        """Of our own its text: one name's, or a whole module's where that is what is named."""
        source = source_of(module, each) if isinstance(each, ast.ImportFrom) else ""
        whole = source if alias.name == EVERYTHING else f"{source}.{alias.name}".lstrip(".")
        if source and (of := module_of(source, self._top)) and alias.name in of.bound:
            self._name(of, alias.name)
        elif of := module_of(whole, self._top):
            self._whole(of)
        else:
            self._say(module, 0, f"{whole} as {binds(alias)}")

    def _whole(self, module: Module) -> None:
        self._say(module, 0, "\n".join(module.lines))
        for name in module.bound:
            self._name(module, name)


def _with_effects(reach: _Reach, effects: list[tuple[Module, ast.stmt]], every: _Reach) -> None:
    """Statements that run on import may change what they name. Each that is taken may bring others along."""
    left = {("", str(n)): effect for n, effect in enumerate(effects)}
    for at, (module, each) in left.items():
        every.follow(module, each, at=at)
    while taken := left.keys() & every.whence(reach.names):
        for at in [at for at in left if at in taken]:
            reach.take(*left.pop(at))


def _effects(first: Module, top: str) -> list[tuple[Module, ast.stmt]]:
    """What runs when the module is imported, and all that it imports."""
    found, wait, known = list[tuple[Module, ast.stmt]](), [first], {first.name}
    for module in wait:
        found += [(module, each) for each in module.body if _acts(each) and not _declared(module, each, top)]
        for name in module.imports():
            parts = name.split(".")
            for n in range(1, len(parts) + 1):
                of = module_of(".".join(parts[:n]), top)
                if of and of.name not in known:
                    known.add(of.name)
                    wait.append(of)
    return found


def _acts(each: ast.stmt) -> bool:
    """A plain definition does nothing but bind its name."""
    if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
        return bool(each.decorator_list)
    if isinstance(each, ast.ClassDef):
        return bool(each.decorator_list or each.bases or each.keywords)
    if isinstance(each, ast.Assign | ast.AnnAssign):
        targets = each.targets if isinstance(each, ast.Assign) else [each.target]
        plain = all(isinstance(target, ast.Name) for target in targets)
        return not plain or any(isinstance(node, ast.Call) for node in ast.walk(each))
    return not isinstance(each, ast.Import | ast.ImportFrom)


def _declared(module: Module, each: ast.stmt, top: str) -> bool:
    """It tells an application of itself, and does nothing else."""
    above = getattr(each, "decorator_list", [each.value] if isinstance(each, ast.Expr) else [])
    return bool(above) and all(
        isinstance(one, ast.Call)
        and isinstance(one.func, ast.Attribute)
        and one.func.attr in DECLARES
        and isinstance(one.func.value, ast.Name)
        and _is_app(module, one.func.value.id, top, 0)
        for one in above
    )


def _is_app(module: Module, name: str, top: str, depth: int) -> bool:
    for each in module.bound.get(name, ()):
        if isinstance(each, ast.Assign | ast.AnnAssign) and isinstance(each.value, ast.Call):
            made = each.value.func
            return "App" in (getattr(made, "id", ""), getattr(made, "attr", ""))
        if isinstance(each, ast.ImportFrom) and depth < 10:
            said = next(alias.name for alias in each.names if binds(alias) == name)
            of = module_of(source_of(module, each), top)
            return of is not None and _is_app(of, said, top, depth + 1)
    return False


@cache
def _names(each: ast.AST, decorators: bool = True) -> list[str]:
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


def _annotations(each: ast.stmt) -> Iterator[ast.expr]:
    """What the function itself takes: an event has methods."""
    for node in (node.annotation for node in ast.walk(getattr(each, "args", each)) if isinstance(node, ast.arg)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield ast.parse(node.value, mode="eval").body
        elif node is not None:
            yield node


def _text(module: Module, each: ast.stmt | ast.expr, decorators: bool = True) -> str:
    first = _first_line(each) if decorators else each.lineno
    return "\n".join(module.lines[first - 1 : each.end_lineno])


def _first_line(each: ast.stmt | ast.expr) -> int:
    above: list[ast.expr] = getattr(each, "decorator_list", [])
    return min(each.lineno, *(one.lineno for one in above)) if above else each.lineno
