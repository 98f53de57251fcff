"""An adapter for three tools of a harbour that nobody has data of, better than its base.

    python examples/auto_lora.py [FOLDER] [ITERATIONS]

Nothing else is needed: conversations are made from the tools' descriptions, by templates; the log is in memory; the
base is the packaged model. Each iteration's mistakes decide what the next one's data are about, and the mix is printed.
At the end llama.cpp answers, by the base and by the adapter, from their GGUF files.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from gpu_workers.train.lines import Report
from rillfold.auto_lora import (
    AutoLoRACreator,
    DependencyChecker,
    GgufFiles,
    LlamaCppClient,
    ToolDefinition,
    TrainingConfig,
)
from schemas.errors import RillfoldError


def text(**more: object) -> dict[str, object]:
    return {"type": "string", **more}


FIND_BOAT = ToolDefinition(
    name="find_boat",
    description="Find a boat by its owner.",
    parameters={"type": "object", "properties": {"owner": text()}, "required": ["owner"]},
    returns={"type": "object", "properties": {"boat_id": text()}, "required": ["boat_id"]},
)
BOOK_BERTH = ToolDefinition(
    name="book_berth",
    description="Book a berth for a boat.",
    parameters={
        "type": "object",
        "properties": {
            "boat_id": text(),
            "arrival_date": text(format="date"),
            "nights": {"type": "integer", "minimum": 1, "maximum": 90},
            "side": {"enum": ["north_pier", "south_pier"]},
        },
        "required": ["boat_id", "arrival_date", "nights"],
    },
    returns={"type": "object", "properties": {"berth": text(pattern="^[A-F]-\\d{2}$")}, "required": ["berth"]},
)
ORDER_FUEL = ToolDefinition(
    name="order_fuel",
    description="Order fuel to a berth.",
    parameters={
        "type": "object",
        "properties": {
            "berth": text(pattern="^[A-F]-\\d{2}$"),
            "amount_litres": {"type": "integer", "minimum": 20, "maximum": 2000},
        },
        "required": ["berth", "amount_litres"],
    },
    returns={"type": "object", "properties": {"arrives": text(format="date")}, "required": ["arrives"]},
    examples=[
        {
            "input": "We lie at B-07 and need 300 litres.",
            "arguments": {"berth": "B-07", "amount_litres": 300},
            "output": {"arrives": "2026-12-01"},
        }
    ],
)
TOOLS = (FIND_BOAT, BOOK_BERTH, ORDER_FUEL)


REQUEST = "We lie at C-42 and need 640 litres."


def said(line: str) -> None:
    print(line, flush=True)


def heard() -> Callable[[int, Report], None]:
    """How far it is, each line once."""
    told = ""

    def hear(iteration: int, report: Report) -> None:
        nonlocal told
        line = f"iteration {iteration}: {report.phase} {report.step}/{report.steps}"
        if report.worth_saying() and line != told:
            told = line
            said(line)

    return hear


def ask_llama_cpp(config: TrainingConfig, folder: Path, adapter: Path) -> None:
    base = GgufFiles(config).base(folder)
    with LlamaCppClient(base, {"harbour": adapter / "adapter.gguf"}, context=1024) as llama:
        for name in (None, "harbour"):
            answer = llama.chat([{"role": "user", "content": REQUEST}], adapter=name, max_tokens=80)
            message = answer["choices"][0]["message"]
            said(f"llama.cpp, {name or 'base'}: {message.get('tool_calls') or message['content']!r}")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "lora_adapters")
    iterations = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    config = TrainingConfig(company="harbour")
    for each in DependencyChecker(config, folder).check().missing:
        raise SystemExit(f"{each.what}: {each.found}. {each.remedy}")
    creator = AutoLoRACreator(config, folder, say=said, on_training=heard())
    for tool in TOOLS:
        creator.add_tool(tool)
    try:
        adapter, metrics = asyncio.run(creator.create_adapter(num_iterations=iterations))
        said(f"{adapter}: {metrics['before']:.3f} -> {metrics['after']:.3f} of {metrics['held_out']} calls exact")
        ask_llama_cpp(config, folder, adapter)
    except RillfoldError as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        said(f"Broken off. What was made before stays in {folder}.")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
