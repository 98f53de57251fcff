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
BEGIN_FIRST, END_FIRST = "<!-- first figures: python -m bench.figures -->\n", "<!-- end of first figures -->\n"
HEAD = "| what, in which figure | against | ratio (lowest to highest run) | command |\n|---|---|---|---|\n"
FIGURES = ("ratios", "costs", "results")
_EXACT = "held-out exact match of calls, values never trained"
FIRST_HEAD = "| | beside | ratio (lowest to highest run) |\n|---|---|---|\n"
FIRST = {
    ("fold", "kafka_streams"): "events folded a second, exactly once",
    ("fold", "quix"): "events folded a second",
    ("fold", "kafka_streams_cpu"): "processor time of a fold, exactly once, less is better",
    ("produce", "aiokafka"): "rows produced a second",
    ("codec", "fastavro"): "events read a second",
    ("train", "trainer_time"): "processor time of a training step, less is better",
    ("train", "trainer_run"): "processor time of a whole training run, less is better",
    ("serve", "peft_1"): "tokens a processor second, one adapter",
    ("serve", "flat_32"): "tokens a processor second with 32 adapters in one batch",
}
"""What the README begins with. The other figures, the bad ones too, stand in its table."""
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
    "reading: share decoded": "of a million records, decoded for a company that has a hundredth, in 20 stretches",
    "reading: share fetched": "of a million records, fetched for a company that has a hundredth, in 20 stretches",
    "reading interleaved: share decoded": "of a million records, decoded for a company that has a hundredth, scattered",
    "reading interleaved: share fetched": "of a million records, fetched for a company that has a hundredth, scattered",
}
"""Figures that have no peer, in words. Their names are short because they are asked for by them."""


def kept() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def table(results: Iterable[dict[str, Any]]) -> str:
    """Every ratio that was kept, the bad ones too, and figures without a peer; then what they were taken on."""
    results = list(results)
    on = sorted({taken for each in results for taken in (taken_on(each), *each.get("earlier", ()))})
    return HEAD + "".join(row for each in results for row in rows(each)) + "".join(f"\nTaken {each}.\n" for each in on)


def first_table(results: Iterable[dict[str, Any]]) -> str:
    """Whatever of `FIRST` was measured."""
    found = {(name_of(each), key): ratio for each in results for key, ratio in each["ratios"].items()}
    lines = (
        f"| {words} | {found[place]['peer']} | {spread(found[place])} |\n"
        for place, words in FIRST.items()
        if place in found
    )
    return FIRST_HEAD + "".join(lines)


def taken_on(result: dict[str, Any]) -> str:
    return f"{result['date']} on {result['machine']}"


def name_of(result: dict[str, Any]) -> str:
    """A benchmark may say after its name what it ran on."""
    return str(result["bench"].partition(" ")[0])


def rows(result: dict[str, Any]) -> Iterator[str]:
    command = f"`rillfold bench {name_of(result)}`"
    for each in result["ratios"].values():
        yield f"| {each['ours']}, {each['figure']} | {each['peer']} | {spread(each)} | {command} |\n"
    for name, value in result.get("costs", {}).items():
        yield f"| {LABELS.get(name, name)} | | {round(value, 3):,.6g} | {command} |\n"


def spread(ratio: dict[str, Any]) -> str:
    return f"{ratio['ratio']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


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
    told = between(README.read_text(), BEGIN_FIRST, first_table(kept()), END_FIRST)
    README.write_text(between(told, BEGIN, table(kept()), END))


def between(text: str, begin: str, told: str, end: str) -> str:
    head, _, rest = text.partition(begin)
    return head + begin + told + end + rest.partition(end)[2]


if __name__ == "__main__":
    main()
