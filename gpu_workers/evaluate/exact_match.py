"""Exact match on held-out requests: the right tool with exactly the right arguments, nothing less."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from gpu_workers.bases.chat import Chat
from processors.answers import CALL, TAGGED, CallForm, ToolCalls, may_begin_bare, parse
from processors.dataset.lessons import Row

BATCH = 64

OnDone = Callable[[int, int], None]
"""(requests done, requests in all)."""


class Scored(NamedTuple):
    """One held-out request, what was wanted and what came."""

    example: Row
    text: str
    exact: bool


def unwatched(_done: int, _of: int) -> None:
    """Progress for nobody."""


def evaluate(
    model: Any,
    chat: Chat,
    examples: Sequence[Row],
    *,
    batch: int = BATCH,
    on_done: OnDone = unwatched,
) -> list[Scored]:
    """Greedy answers, judged. Long prompts go together, so that little is padded."""
    ordered = sorted(examples, key=lambda example: len(example.prompt[-1].content))
    scored: list[Scored] = []
    for start in range(0, len(ordered), batch):
        part = ordered[start : start + batch]
        limit = max(len(chat.sample((*e.prompt, e.answer)).answer) for e in part) + 8
        silent = not any(e.answer.content for e in part)
        texts = answer(model, chat, [chat.prompt(e.prompt) for e in part], limit, only_calls=silent)
        scored += [Scored(e, text, is_exact(e, text, chat.form)) for e, text in zip(part, texts, strict=True)]
        on_done(len(scored), len(ordered))
    return scored


def accuracy(scored: Sequence[Scored]) -> float:
    return sum(each.exact for each in scored) / len(scored) if scored else 0.0


def is_exact(example: Row, text: str, form: CallForm = TAGGED) -> bool:
    """All calls in order, names and arguments equal in canonical form; words before them only where some are right."""
    meant, right = parse(text, form), example.answer
    if not isinstance(meant, ToolCalls) or (meant.text and not right.content):
        return False
    return meant.calls == right.tool_calls


def answer(
    model: PreTrainedModel, chat: Chat, prompts: Sequence[Sequence[int]], limit: int, *, only_calls: bool = False
) -> list[str]:
    """Padded on the left: generation goes on from the right end of every row.

    `only_calls` ends a row as soon as it cannot begin with a call any more.
    """
    longest = max(map(len, prompts))
    pad = chat.end
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    generate: Any = model.generate
    with torch.inference_mode():
        out = generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=sorted(chat.ends),
            pad_token_id=pad,
            stopping_criteria=StoppingCriteriaList([_NoCall(chat, longest)] if only_calls else []),
        )
    return [chat.decode(_until_end(line, chat.ends)) for line in out[:, longest:].tolist()]


class _NoCall(StoppingCriteria):
    """Per row: its text is neither a call's beginning nor on the way to one."""

    def __init__(self, chat: Chat, prompt: int) -> None:
        self._chat, self._prompt = chat, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        said = (self._chat.decode(row).lstrip() for row in input_ids[:, self._prompt :].tolist())
        hopeless = [not self._may_call(text) for text in said]
        return torch.tensor(hopeless, device=input_ids.device)

    def _may_call(self, text: str) -> bool:
        tag = text.startswith(CALL) or CALL.startswith(text)
        return tag or (self._chat.form.bare and may_begin_bare(text))


def _until_end(ids: list[int], ends: frozenset[int]) -> list[int]:
    return ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))]
