"""The README's table of figures, made from the results that are kept beside the benchmarks.

rillfold bench fold --json | python -m bench.figures keep    puts a run into bench/results/fold.json
python -m bench.figures                                      writes the table

A run of some of a benchmark's parts says `partial`: it replaces their figures, and the others stay as they were taken.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[1]
RESULTS = HOME / "bench" / "results"
README = HOME / "README.md"
BEGIN, END = "<!-- figures: python -m bench.figures -->\n", "<!-- end of figures -->\n"
HEAD = "| what, in which figure | against | ratio (lowest to highest run) | command |\n|---|---|---|---|\n"
FIGURES = ("ratios", "costs", "results")
_EXACT = "held-out exact match of calls, values never trained"
LABELS = {
    "exact lora": f"{_EXACT}: LoRA",
    "exact rslora": f"{_EXACT}: rsLoRA",
    "exact qlora": f"{_EXACT}: QLoRA, base in four bits",
    "exact qlora behind lora": "so much is QLoRA behind LoRA",
    "exact activated": f"{_EXACT}: activated LoRA, twice the rank",
    "exact adalora": f"{_EXACT}: AdaLoRA, really unequal ranks",
    "replay": "three processes, one request: so many ended in the same bytes",
    "replay tiny": "three processes, one request, a tiny base: so many ended in the same bytes",
    "resumed": "runs killed at random and taken up: of 20, so many ended in the bytes of one that was not",
    "resumed: from a checkpoint": "runs killed at random: of 20, so many went on from a checkpoint",
    "outcomes": f"a fifth of the data spoilt, {_EXACT}: taught by outcomes and corrections",
    "outcomes, by everything": f"a fifth of the data spoilt, {_EXACT}: taught by everything",
    "outcomes gain": "so much is taught by outcomes better",
    "reading: share decoded": "of a million records, decoded for one company of a hundred, in 20 stretches",
    "reading interleaved: share decoded": "of a million records, decoded for one company of a hundred, scattered",
}
"""Figures that have no peer, in words. Their names are short because they are asked for by them."""


def kept() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def table(results: Iterable[dict[str, Any]]) -> str:
    """Every ratio that was kept, the bad ones too, and figures without a peer; then what they were taken on."""
    results = list(results)
    on = sorted({taken for each in results for taken in (taken_on(each), *each.get("earlier", ()))})
    return HEAD + "".join(row for each in results for row in rows(each)) + "".join(f"\nTaken {each}.\n" for each in on)


def taken_on(result: dict[str, Any]) -> str:
    return f"{result['date']} on {result['machine']}"


def name_of(result: dict[str, Any]) -> str:
    """A benchmark may say after its name what it ran on."""
    return str(result["bench"].partition(" ")[0])


def rows(result: dict[str, Any]) -> Iterator[str]:
    command = f"`rillfold bench {name_of(result)}`"
    for each in result["ratios"].values():
        spread = f"{each['ratio']:.2f} ({each['low']:.2f} to {each['high']:.2f})"
        yield f"| {each['ours']}, {each['figure']} | {each['peer']} | {spread} | {command} |\n"
    for name, value in result.get("costs", {}).items():
        yield f"| {LABELS.get(name, name)} | | {round(value, 3):,.6g} | {command} |\n"


def merged(before: dict[str, Any] | None, result: dict[str, Any]) -> dict[str, Any]:
    """What is kept after this run."""
    if before is None or not result.get("partial"):
        return result
    earlier = {taken_on(before), *before.get("earlier", ())} - {taken_on(result)}
    whole = result | {name: before.get(name, {}) | result[name] for name in FIGURES}
    return whole | {"partial": before.get("partial", False), "earlier": sorted(earlier)}


def main() -> None:
    if sys.argv[1:] == ["keep"]:
        result = json.loads(sys.stdin.read())
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name_of(result)}.json"
        before = json.loads(path.read_text()) if path.is_file() else None
        path.write_text(json.dumps(merged(before, result), indent=1) + "\n")
    head, _, rest = README.read_text().partition(BEGIN)
    README.write_text(head + BEGIN + table(kept()) + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
