"""Applications found by their names, and taken in beside ours."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, TypeVar

from processors.dataset.taught import Rule
from projections.catalog import PROJECTIONS
from projections.projection import Projection
from rillfold.app.app import App
from rillfold.app.errors import BadApp, raised_at
from rillfold.app.installed import GROUP, Installed
from schemas.codec.additions import add
from schemas.codec.catalog import classes, kind_of
from schemas.near import meant
from schemas.topics import Topic
from streams.bridge.signing import AuthKind

Placed = TypeVar("Placed", Rule, AuthKind)


def with_apps(apps: Sequence[App]) -> Installed:
    """Ours and what these add. From here on their events are read and written like ours."""
    events = [event for app in apps for event in app.checked()]
    _check_events(apps)
    _check_names(apps)
    add(events, _topics(apps))
    reactions = [reaction for app in apps for reaction in app.reactions.values()]
    rules = _by_name("rule", ((app, app.rules) for app in apps))
    return Installed(_projections(apps), reactions, rules, _by_name("auth", ((app, app.auths) for app in apps)))


def _topics(apps: Sequence[App]) -> list[Topic]:
    topics = [topic for app in apps for topic in app.topics.values()]
    names = [topic.name for topic in topics]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadApp(f"Two applications have a topic {twice[0]!r}. One of both needs another name.")
    return topics


def _check_names(apps: Sequence[App]) -> None:
    """Reactions' groups have the application's name: two of one name would each take half."""
    names = [app.name for app in apps if app.reactions]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadApp(f"Two applications are named {twice[0]!r}. One of both needs another name.")


def _check_events(apps: Sequence[App]) -> None:
    """An event of an application that is there already under its name is another one's."""
    there = dict(classes())
    for app in apps:
        for cls in app.events:
            type_ = kind_of(cls).type
            if there.setdefault(type_, cls) is not cls:
                raise BadApp(f"Event {type_!r} of {app.name} is there already. One of both needs another name.")


def _projections(apps: Sequence[App]) -> Mapping[str, Projection[Any]]:
    projections = dict(PROJECTIONS)
    whose = dict.fromkeys(PROJECTIONS, "Rillfold")
    for app in apps:
        for name, projection in app.projections.items():
            if name in projections:
                raise BadApp(
                    f"{app.name} and {whose[name]} both have a projection {name!r}: one of them needs another."
                )
            projections[name], whose[name] = projection, app.name
    return projections


def _by_name(what: str, those: Iterable[tuple[App, Mapping[str, Placed]]]) -> Mapping[str, Placed]:
    found = dict[str, Placed]()
    for app, named in those:
        for name, each in named.items():
            if found.setdefault(name, each) is not each:
                raise BadApp(f"{each.place}: {what} {name!r} of {app.name} is another application's, too. Rename it.")
    return found


def apps_of(word: str | None) -> list[App]:
    """The one that is named; else those of installed packages."""
    if word is not None:
        if (here := str(Path.cwd())) not in sys.path:
            # Last: what lies in this folder never stands before an installed package.
            sys.path.append(here)
        return [_found(word, f"RILLFOLD_APP={word}")] if word else []
    points = sorted(entry_points(group=GROUP), key=lambda each: each.name)
    return [_found(each.value, f"The entry point {each.name} = {each.value!r} of {GROUP}") for each in points]


def _found(word: str, told: str) -> App:
    module, _, attribute = word.partition(":")
    try:
        found = getattr(import_module(module), attribute or "app", None)
    except BadApp:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _broken(told, error) from error
        remedy = f"Install its package, or start where it lies: {Path.cwd()} was looked through, too"
        raise BadApp(f"{told}: there is no module {error.name}.{_meant(error.name)} {remedy}.") from error
    except (Exception, SystemExit) as error:
        raise _broken(told, error) from error
    if not isinstance(found, App):
        what = f"{attribute or 'app'} of {module} is {type(found).__name__}"
        raise BadApp(f"{told}: {what}, not an App. Name it as MODULE:ATTRIBUTE, or let it be `app` there.")
    return found


def _meant(missing: str) -> str:
    """Modules that lie beside where the missing one would: in its package, else in this folder."""
    package = missing.rpartition(".")[0]
    where = getattr(sys.modules[package], "__path__", []) if package else [str(Path.cwd())]
    beside = [each.name for each in iter_modules(where)]
    return meant(missing, [f"{package}.{each}" if package else each for each in beside])


def _broken(told: str, error: BaseException) -> BadApp:
    why = f"{type(error).__name__}: {error}"
    return BadApp(f"{told} does not import: {raised_at(error)} raises {why}. Mend it, or unset RILLFOLD_APP.")
