"""Writes what a new event or a new version lacks: its .avsc, its line in the history, its golden bytes.

python tests/upgrade/write.py                        what is missing, and what old bytes now read as
python tests/upgrade/write.py --again job.stepped.v1 this one anew: only before anybody has written such a record
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402

from schemas.codec import catalog, codec, compat, derive  # noqa: E402
from schemas.envelope import Event, Kind, Origin  # noqa: E402

AVRO = ROOT / "schemas" / "avro"
WIRE = ROOT / "tests" / "upgrade" / "wire"


def main(again: list[str]) -> None:
    kinds = {catalog.kind_of(cls): cls for cls in catalog.classes().values()}
    for kind, cls in kinds.items():
        path = AVRO / f"{kind}.avsc"
        if not path.exists() or str(kind) in again:
            path.write_text(json.dumps(derive.avro_of(cls), indent=2) + "\n")
            print(f"wrote {path.relative_to(ROOT)}")  # noqa: T201
    record_history(again)
    for name in ("history", "catalog"):
        getattr(catalog, name).cache_clear()
    codec.readers.cache_clear()
    compat.check_compatible()
    (AVRO / compat.JUDGED).write_text(compat.judgement() + "\n")
    for kind, cls in kinds.items():
        path = WIRE / f"{kind}.json"
        if not path.exists() or str(kind) in again:
            path.write_text(json.dumps(golden(kind, cls), indent=2, ensure_ascii=False) + "\n")
            print(f"wrote {path.relative_to(ROOT)}")  # noqa: T201
    for kind in catalog.catalog().by_kind.keys() - kinds.keys():
        lift_golden(WIRE / f"{kind}.json")


def lift_golden(path: Path) -> None:
    """The bytes of an old version stay; what they read as is what its upcasters say today."""
    records = json.loads(path.read_text())
    for record in records:
        record["reads"] = msgspec.to_builtins(codec.decode(bytes.fromhex(record["value"]), Origin("golden", 0, 0), 0))
    path.write_text(json.dumps(records, indent=2, ensure_ascii=False) + "\n")


def record_history(again: list[str]) -> None:
    path = AVRO / "history.json"
    recorded = json.loads(path.read_text())
    for avsc in sorted(AVRO.glob("*.avsc")):
        if avsc.stem not in recorded or avsc.stem in again:
            recorded[avsc.stem] = msgspec.to_builtins(compat.record_of(avsc.read_bytes()))
            print(f"recorded {avsc.stem}")  # noqa: T201
    path.write_text(json.dumps(dict(sorted(recorded.items())), indent=2) + "\n")


def golden(kind: Kind, cls: type[Event]) -> list[dict[str, Any]]:
    """One event with everything in it, one with the least."""
    return [
        {"value": codec.encode(event).hex(), "reads": msgspec.to_builtins(event)}
        for event in (example(cls, full=True), example(cls, full=False))
    ]


def example(cls: Any, full: bool) -> Any:
    hints = get_type_hints(cls)
    return cls(
        **{
            field.name: _value(field.name, hints[field.name], full)
            for field in msgspec.structs.fields(cls)
            if field.name not in ("type", "version") or not issubclass(cls, Event)
            if full or field.required
        }
    )


def _value(name: str, hint: Any, full: bool) -> Any:
    if name in ("company", "time"):
        return {"company": "acme_corp", "time": 1_790_000_000_123_456}[name]
    if get_origin(hint) is tuple:
        return tuple(_value(name, get_args(hint)[0], full) for _ in range(2 if full else 1))
    if args := [argument for argument in get_args(hint) if argument is not type(None)]:
        return _value(name, args[0], full)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return example(hint, full)
    plain = {str: f"{name} é 漢 🙂" if full else name, int: -(2**40) if full else 7, float: 0.25, bool: True}
    return {**plain, bytes: b"\x00\xff" + name.encode()}[hint]


if __name__ == "__main__":
    main(sys.argv[2:] if sys.argv[1:2] == ["--again"] else [])
