"""A row's state as an application declares it: frozen through and through, and made of what a row can hold."""

import types
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from projections.projection import Together
from rillfold.app.errors import BadApp, place_of

State = TypeVar("State", bound=msgspec.Struct)
PLAIN = (str, int, float, bool, bytes, type(None))
SHOWN = ("topic", "source_partition", "source_offset")
"""Columns that every view has beside the state's."""
OPERATIONS: Mapping[str, Callable[[int, int], int]] = {"sum": lambda a, b: a + b, "min": min, "max": max}


def check_state(state: object, of: str, where: str) -> None:
    """What can be changed in place, a fold may change in place: then a row would not be a fold of the log."""
    if not (isinstance(state, type) and issubclass(state, msgspec.Struct)):
        remedy = "class Total(msgspec.Struct, frozen=True)"
        raise BadApp(f"{where}: the state of {of} is {state!r}, which is no frozen struct. Declare it: {remedy}.")
    _check_frozen(state, of, set())
    for field in msgspec.structs.fields(state):
        if field.name in SHOWN or not field.name.isascii():
            raise BadApp(f"{place_of(state)}: {state.__name__}.{field.name} of {of} cannot be a column: rename it.")
        if field.required and field.name not in ("company", "key"):
            told = "a row begins with what stands there. Give it a default"
            raise BadApp(f"{place_of(state)}: {state.__name__}.{field.name} of {of} has no default: {told}.")


def _check_frozen(state: type[msgspec.Struct], of: str, seen: set[type[msgspec.Struct]]) -> None:
    seen.add(state)
    if not state.__struct_config__.frozen:
        told = "a fold could change it in place. Say class ...(msgspec.Struct, frozen=True)"
        raise BadApp(f"{place_of(state)}: {state.__name__} of {of} is not frozen: {told}.")
    for name, hint in hints_of(state, f"the state of {of}").items():
        for part in _parts(hint):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                if part not in seen:
                    _check_frozen(part, of, seen)
            elif part not in PLAIN:
                told = "rows hold text, numbers, bool, bytes, tuple[..., ...], frozen structs, and these or None"
                raise BadApp(f"{place_of(state)}: {state.__name__}.{name} of {of} is {part}: {told}.")


def _parts(hint: Any) -> list[Any]:
    """What stands in a value of this type, down to what is no container that cannot change."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _parts(arguments[0])
    if origin is Literal:
        return [type(each) for each in arguments]
    if origin in (Union, types.UnionType, tuple, frozenset):
        return [part for each in arguments if each is not Ellipsis for part in _parts(each)]
    return [hint]


def hints_of(thing: Any, what: str) -> dict[str, Any]:
    try:
        return get_type_hints(thing, include_extras=True)
    except Exception as error:
        told = f"the annotations of {what} cannot be read: {error}. Import what they name at the module's top"
        raise BadApp(f"{place_of(thing)}: {told}.") from error


def readable(state: type[State], of: str) -> Callable[[State], None]:
    """Raises `TypeError` where a value is of another type than the state says: its row could never be read again.

    Of fields that hold no more than text and numbers, types that were right once are right again.
    """
    hints = hints_of(state, f"the state of {of}")
    plain = all(part in PLAIN for hint in hints.values() for part in kinds_of(hint))
    values: Callable[[State], tuple[object, ...]] = attrgetter(*hints) if len(hints) > 1 else msgspec.structs.astuple
    known: set[tuple[type, ...]] = set()

    def check(after: State) -> None:
        kinds = tuple(map(type, values(after)))
        if kinds in known:
            return
        try:
            msgspec.convert(msgspec.to_builtins(after), state)
        except msgspec.ValidationError as error:
            raise TypeError(f"{of} returned {state.__name__} with another type than it says: {error}") from error
        if plain:
            known.add(kinds)

    return check


def kinds_of(hint: Any) -> list[Any]:
    """What an annotation names, one or several."""
    return list(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else [hint]


def beginning(state: type[State]) -> Callable[[str], State]:
    """The row that nothing was folded into yet: whose it is, where its state says so, and defaults."""
    names = {field.name for field in msgspec.structs.fields(state)}

    def initial(row: str) -> State:
        company, _, key = row.partition("/")
        return state(**{name: part for name, part in (("company", company), ("key", key)) if name in names})

    return initial


def merging(state: type[State], together: Mapping[str, Together], of: str) -> Callable[[State, State], State]:
    """Parts of one row put together, as its view does."""
    hints = hints_of(state, f"the state of {of}")
    for name, how in together.items():
        if how not in OPERATIONS or hints.get(name) is not int:
            told = f"say one of {', '.join(OPERATIONS)}, of a field that is an int"
            raise BadApp(f"{place_of(state)}: {of} cannot merge {name} of {state.__name__} by {how!r}: {told}.")
    for name in hints.keys() - together.keys():
        if hints[name] not in (str, int, float):
            told = "parts of a row are merged where each field is a sum, min or max, or text or a number that all share"
            raise BadApp(f"{place_of(state)}: {of} cannot merge {name} of {state.__name__}: {told}.")

    def merge(a: State, b: State) -> State:
        merged = {name: OPERATIONS[how](getattr(a, name), getattr(b, name)) for name, how in together.items()}
        return msgspec.structs.replace(a, **merged)

    return merge
