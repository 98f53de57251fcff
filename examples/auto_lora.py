"""An adapter for three tools of a harbour that nobody has data of, better than its base.

    python examples/auto_lora.py [FOLDER] [ITERATIONS]

Nothing else is needed: conversations are made from the tools' descriptions, by templates; the log is in memory; the
base is the packaged model. Each iteration's mistakes decide what the next one's data are about, and the mix is printed.
"""

import asyncio
import sys

from rillfold.auto_lora import AutoLoRACreator, DependencyChecker, ToolDefinition, TrainingConfig


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


def main() -> None:
    folder = sys.argv[1] if len(sys.argv) > 1 else "lora_adapters"
    iterations = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    for each in DependencyChecker().check().missing:
        raise SystemExit(f"{each.what}: {each.found}. {each.remedy}")
    creator = AutoLoRACreator(TrainingConfig(company="harbour"), folder, say=lambda line: print(line, flush=True))
    for tool in TOOLS:
        creator.add_tool(tool)
    adapter, metrics = asyncio.run(creator.create_adapter(num_iterations=iterations))
    print(f"{adapter}: {metrics['before']:.3f} -> {metrics['after']:.3f} of {metrics['held_out']} held-out calls exact")


if __name__ == "__main__":
    main()
