"""What a class says about its Avro schema. The stored .avsc is the truth; this tells where a class departs from it."""

from __future__ import annotations

import inspect
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from schemas.words import Word

NAMESPACE = "rillfold"
PRIMITIVES = {str: "string", int: "long", float: "double", bool: "boolean", bytes: "bytes"}

Schema = dict[str, Any]


def avro_of(cls: type[msgspec.Struct], namespace: str = NAMESPACE) -> Schema:
    """The Avro record of an event class, envelope first, nested records written out where they first occur."""
    return _record(cls, namespace, set())


def _record(cls: type[msgspec.Struct], namespace: str, written: set[str]) -> Schema:
    written.add(cls.__name__)
    hints = get_type_hints(cls, include_extras=True)
    fields = [_field(field, hints[field.name], namespace, written) for field in msgspec.structs.fields(cls)]
    name = {"type": "record", "name": cls.__name__, "namespace": namespace}
    return {**name, "doc": inspect.cleandoc(cls.__doc__ or ""), "fields": fields}


def _field(field: msgspec.structs.FieldInfo, hint: object, namespace: str, written: set[str]) -> Schema:
    schema: Schema = {"name": field.name, "type": _type(hint, namespace, written)}
    if word := word_of(hint):
        schema["word"] = word.kind
    if field.default is not msgspec.NODEFAULT:
        schema["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
    return schema


def word_of(hint: Any) -> Word | None:
    """Its kind, if what stands in the field is text."""
    inner = get_args(hint)
    if get_origin(hint) is Annotated:
        return next(each for each in inner if isinstance(each, Word))
    return next((word for each in inner if (word := word_of(each))), None)


def _type(hint: Any, namespace: str, written: set[str]) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type(arguments[0], namespace, written)
    if origin in (Union, UnionType):
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return ["null", _type(inner, namespace, written)]
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0], namespace, written)}
    if hint in PRIMITIVES:
        return PRIMITIVES[hint]
    assert issubclass(hint, msgspec.Struct), f"{hint} has no Avro type here"
    return f"{namespace}.{hint.__name__}" if hint.__name__ in written else _record(hint, namespace, written)
