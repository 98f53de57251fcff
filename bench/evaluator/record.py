"""Verdicts of the Berkeley checker on made-up cases, for the suite, which has no wheel.

python -m bench.evaluator.record > tests/measure/verdicts.jsonl
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from bench.evaluator.mutations import mutated
from bench.evaluator.official import Case, Official, downloaded, right_call

COUNT, SEED = 280, 20_261_126
PARCEL: dict[str, Any] = {
    "name": "parcels.send",
    "parameters": {
        "type": "dict",
        "required": ["to", "weight"],
        "properties": {
            "to": {"type": "string"},
            "weight": {"type": "float"},
            "pieces": {"type": "integer"},
            "insured": {"type": "boolean"},
            "labels": {"type": "array", "items": {"type": "string"}},
            "size": {"type": "tuple", "items": {"type": "float"}},
            "sender": {"type": "dict"},
            "stops": {"type": "array", "items": {"type": "dict"}},
            "note": {"type": "any"},
        },
    },
}
ROOM: dict[str, Any] = {
    "name": "book_room",
    "parameters": {
        "type": "dict",
        "required": ["day"],
        "properties": {"day": {"type": "string"}, "seats": {"type": "integer"}},
    },
}
SENT: dict[str, Any] = {
    "parcels.send": {
        "to": ["12 Mill Road, Ely", "Mill Road 12"],
        "weight": [2.5, 2],
        "pieces": [3, "pieces"],
        "insured": [True, ""],
        "labels": [["Fragile", "This side up"], ["fragile"], ""],
        "size": [[10.5, 2.0], [10.5, 2]],
        "sender": [{"name": ["Ann O'Hara", "Ann"], "floor": [2, ""]}],
        "stops": [[{"at": ["Ely"], "hour": [9, 10]}, {"at": ["York", ""]}]],
        "note": ["by hand", ""],
    }
}
PLAIN: dict[str, Any] = {"parcels.send": {"to": ["Ely"], "weight": [4.0], "labels": ["", []], "pieces": ["", 1]}}
MONDAY: dict[str, Any] = {"book_room": {"day": ["2026-11-30", "Nov. 30, 2026"], "seats": [4, ""]}}
ANY_DAY: dict[str, Any] = {"book_room": {"day": ["2026-12-01", "2026-11-30"], "seats": [4, 5]}}
CASES = {
    "simple": ([PARCEL], [SENT]),
    "simple_plain": ([PARCEL], [PLAIN]),
    "multiple": ([ROOM, PARCEL], [SENT]),
    "parallel": ([ROOM], [ANY_DAY, MONDAY]),
    "parallel_multiple": ([PARCEL, ROOM], [MONDAY, SENT, ANY_DAY]),
}


def main() -> None:
    cases = [
        Case(name, name, tools, accepted, [right_call(tools, call) for call in accepted])
        for name, (tools, accepted) in CASES.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        official = Official(downloaded(Path(folder)))
        made = [case for _, case in mutated(cases, COUNT, SEED)]
        judged = [(case, official.right(case)) for case in [*cases, *made]]
    print(json.dumps({"cases": {name: {"tools": tools, "accepted": each} for name, (tools, each) in CASES.items()}}))
    for case, is_right in judged:
        if is_right is None:
            continue  # the checker broke on it
        print(json.dumps({"case": case.id, "output": case.output, "right": is_right}))


if __name__ == "__main__":
    main()
