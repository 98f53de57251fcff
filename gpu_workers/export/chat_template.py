"""The template that goes with a base: its own where that is what is served, else ours, for llama.cpp's own Jinja."""

from __future__ import annotations

import json
import re

from gpu_workers.bases.chat import Chat
from gpu_workers.bases.templates.chatml import END, START, TOOLS_AFTER, TOOLS_BEFORE, ChatMl
from gpu_workers.bases.templates.own_template import OwnTemplate

_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
"""Marks for trainers, which no other reader knows."""
_CLOCK = re.compile(r"\bstrftime_now\b")
"""Here templates have none, lest what was trained on one day be asked otherwise on another."""

_OURS = """
{%- macro said(message) -%}
    {{- message.content or '' -}}
    {%- for call in message.tool_calls or [] -%}
        {{- '' if loop.first and not message.content else '\\n' -}}
        {{- '<tool_call>\\n{"name": ' ~ call.function.name | tojson ~ ', "arguments": ' -}}
        {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson -}}
        {{- '}\\n</tool_call>' -}}
    {%- endfor -%}
{%- endmacro -%}
{%- set given = messages and messages[0].role == 'system' -%}
{%- set system = messages[0].content if given else STANDARD -%}
{%- if tools -%}
    {{- START ~ 'system\\n' ~ (system ~ '\\n\\n' if system else '') ~ BEFORE -}}
    {%- for tool in tools -%}
        {%- set it = tool.function or tool -%}
        {{- '' if loop.first else '\\n' -}}
        {{- '{"type": "function", "function": {"name": ' ~ it.name | tojson -}}
        {{- ', "description": ' ~ it.description | tojson if it.description else '' -}}
        {{- ', "parameters": ' ~ it.parameters | tojson if it.parameters is defined else '' -}}
        {{- '}}' -}}
    {%- endfor -%}
    {{- AFTER ~ END ~ '\\n' -}}
{%- elif given or system is not none -%}
    {{- START ~ 'system\\n' ~ system ~ END ~ '\\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'tool' -%}
        {{- '\\n' if loop.index0 and messages[loop.index0 - 1].role == 'tool' else START ~ 'user\\n' -}}
        {{- '<tool_response>\\n' ~ message.content ~ '\\n</tool_response>' -}}
        {{- '' if not loop.last and messages[loop.index0 + 1].role == 'tool' else END ~ '\\n' -}}
    {%- elif message.role != 'system' -%}
        {{- START ~ message.role ~ '\\n' ~ said(message) ~ END ~ '\\n' -}}
    {%- endif -%}
{%- endfor -%}
{{- START ~ 'assistant\\n' if add_generation_prompt else '' -}}
"""


def template_of(chat: Chat) -> str:
    template = chat.template
    if isinstance(template, OwnTemplate):
        return _CLOCK.sub("no_clock", _GENERATION.sub("", template.text))
    assert isinstance(template, ChatMl)
    words: dict[str, str | None] = {"START": START, "END": END, "BEFORE": TOOLS_BEFORE, "AFTER": TOOLS_AFTER}
    words |= {"STANDARD": template.default_system}
    head = "".join(f"{{%- set {name} = {_literal(word)} -%}}\n" for name, word in words.items())
    return (head + _OURS.strip()).replace("\n    ", "\n")


def _literal(word: str | None) -> str:
    return "none" if word is None else json.dumps(word, ensure_ascii=False)
