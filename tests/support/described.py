"""Tools of a company that nobody has data of."""

from __future__ import annotations

from processors.synthetic.definition import EXAMPLE, ToolDefinition


def words(*names: str, **more) -> dict:
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": [*names], **more}


def company_tools() -> list[ToolDefinition]:
    quote = words("customer_id")
    quote["properties"] |= {
        "amount_eur": {"type": "number", "minimum": 10, "maximum": 5000},
        "express": {"type": "boolean"},
        "kind": {"enum": ["air_freight", "sea_freight", "road"]},
    }
    return [
        ToolDefinition(**EXAMPLE),
        ToolDefinition("find_customer", "Find a customer.", words("name"), words("customer_id")),
        ToolDefinition("send_quote", "Send a quote to a customer.", quote, words("quote")),
    ]
