"""Part 6: the dataset, an adapter and every projection once more from the log: equal. A flipped byte is caught."""

import time

from rillfold.demo.data import ACME
from rillfold.demo.stage import Stage


async def tell(stage: Stage) -> None:
    adapter = stage.adapters[ACME.id]
    folder = stage.data_dir / "dataset"
    ranges = [text for r in adapter["ranges"] for text in ("--range", f"{r['partition']}:{r['start']}:{r['stop']}")]
    built = await stage.ask("dataset", "build", "--company", ACME.id, *ranges, "--out", str(folder))
    stage.expect(
        built["sha256"] == adapter["manifest"],
        f"the dataset again: manifest {built['sha256'][:16]}… as in adapter.ready",
    )
    await _flip(stage)
    stage.say("training acme/default again from the same ranges")
    again = await stage.ask("retrain", "acme/default", "--no-measure")
    stage.expect(again["identical"], f"the adapter again: sha256 {again['sha256'][:16]}…, every byte the same")
    await _refold(stage)


async def _flip(stage: Stage) -> None:
    rows = stage.data_dir / "dataset" / "rows.jsonl"
    content = bytearray(rows.read_bytes())
    content[len(content) // 2] ^= 1
    rows.write_bytes(content)
    await stage.rillfold("dataset", "verify", str(rows.parent), "--offline", codes=(1,))
    stage.expect(True, "one flipped bit in a copy of the rows was caught")


async def _refold(stage: Stage) -> None:
    began = time.monotonic()
    digests = await stage.ask("projection", "digest", "--refold")
    seconds = time.monotonic() - began
    for each in digests:
        stage.expect(
            each["served"] == each["refolded"],
            f"{each['projection']} folded again from offset 0: digest {each['refolded'][:16]}… ({each['rows']} rows)",
        )
    events = sum(each["events"] for each in digests)
    stage.figures["events folded again, a second (all projections, one process)"] = f"{events / seconds:,.0f}"
