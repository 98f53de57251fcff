"""How models of other kinds are spoken to: templates that do what those of Llama 3 and Qwen3 do, and tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gpu_workers.bases import load as base_model
from gpu_workers.bases import tiny
from gpu_workers.bases.chat import Chat
from gpu_workers.bases.device import Device

_QWEN3 = """
{%- set state = namespace(question=0) -%}
{%- if tools -%}
<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}# Tools

Call any of these:
<tools>
{% for tool in tools %}
{{ tool | tojson }}
{% endfor %}
</tools><|im_end|>
{% elif messages[0].role == 'system' -%}
<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif -%}
{%- for message in messages -%}
{%- if message.role == 'user' and not (message.content.startswith('<tool_response>') and
       message.content.endswith('</tool_response>')) -%}
{%- set state.question = loop.index0 -%}
{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{ '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' -%}
{%- set thought, said = '', message.content -%}
{%- if '</think>' in said -%}
{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') -%}
{%- set said = said.split('</think>')[-1].lstrip('\n') -%}
{%- endif -%}
{{ '<|im_start|>assistant\n' }}
{%- if loop.index0 > state.question and (loop.last or thought) -%}
{{ '<think>\n' + thought + '\n</think>\n\n' + said.lstrip('\n') }}
{%- else -%}
{{ said }}
{%- endif -%}
{%- for call in message.tool_calls or [] -%}
{%- if not loop.first or said %}{{ '\n' }}{% endif -%}
{%- set call = call.function or call -%}
{{ '<tool_call>\n{"name": "' + call.name + '", "arguments": ' + (call.arguments | tojson) + '}\n</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>\n' }}
{%- elif message.role == 'tool' -%}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif -%}
{{ '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif -%}
{%- endif -%}
"""

_LLAMA3 = """
{{- bos_token }}
{%- if not date is defined -%}
{%- set date = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' -%}
{%- endif -%}
{%- set system, rest = '', messages -%}
{%- if messages and messages[0].role == 'system' -%}
{%- set system, rest = messages[0].content | trim, messages[1:] -%}
{%- endif -%}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}
{%- if tools %}{{ 'Environment: ipython\n' }}{% endif -%}
{{- 'Today is ' + date + '.\n\n' + system + '<|eot_id|>' }}
{%- if tools -%}
{%- if not rest %}{{ raise_exception('No place for tools where nobody asks.') }}{% endif -%}
{{- '<|start_header_id|>user<|end_header_id|>\n\nAnswer with a call, as {"name": name, "parameters": object}.\n\n' }}
{%- for tool in tools %}{{ (tool | tojson(indent=4)) + '\n\n' }}{% endfor -%}
{{- (rest[0].content | trim) + '<|eot_id|>' }}
{%- set rest = rest[1:] -%}
{%- endif -%}
{%- for message in rest -%}
{%- if message.role in ('tool', 'ipython') -%}
{{- '<|start_header_id|>ipython<|end_header_id|>\n\n' + (message.content | tojson) + '<|eot_id|>' }}
{%- elif message.tool_calls -%}
{%- if message.tool_calls | length != 1 %}{{ raise_exception('One call at a time.') }}{% endif -%}
{%- set call = message.tool_calls[0].function -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{{- '{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) + '}<|eot_id|>' }}
{%- else -%}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + (message.content | trim) + '<|eot_id|>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif -%}
"""

_THINKS_NOT = _QWEN3.replace("enable_thinking is false", "false").replace("(loop.last or thought)", "thought")

KINDS = {
    "ours": tiny.QWEN3,
    "qwen3": tiny.TinyKind(
        template=_QWEN3,
        marks=("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
    ),
    "qwen3-instruct": tiny.TinyKind(template=_THINKS_NOT, marks=("<tool_call>", "</tool_call>")),
    "tags": tiny.TinyKind(template=_THINKS_NOT, specials=(*tiny.SPECIALS, "<tool_call>", "</tool_call>")),
    "llama3": tiny.TinyKind(
        family="llama",
        template=_LLAMA3,
        specials=(
            "<|end_of_text|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
            "<|eom_id|>", "<|python_tag|>",
        ),
        end="<|eot_id|>",
        begin="<|begin_of_text|>",
    ),
}  # fmt: skip


def make(root: Path, name: str) -> Path:
    texts = ["Look up customer C-4711, please.", "Refund 12 euros to Ms Grey.", '{"name": "crm_lookup", "a": 1}']
    return tiny.make(root / name, texts, kind=KINDS[name])


class Speaker(NamedTuple):
    name: str
    folder: Path
    model: Any
    chat: Chat

    @property
    def words(self) -> Any:
        return self.chat.tokenizer


@pytest.fixture(scope="session")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Speaker]:
    root = tmp_path_factory.mktemp("tongues")
    found = {}
    for name in KINDS:
        model, tokenizer, _ = base_model.load(str(folder := make(root, name)), root, Device("cpu", "float32", 1))
        chat = Chat.of(tokenizer, model.generation_config.eos_token_id)
        found[name] = Speaker(name, folder, model, chat)
    return found


@pytest.fixture(params=sorted(KINDS))
def each_speaker(request: pytest.FixtureRequest, speakers: dict[str, Speaker]) -> Speaker:
    return speakers[request.param]
