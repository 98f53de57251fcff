"""An answer in OpenAI's shape: whole, and piece by piece."""

from typing import Any

from gpu_workers.serve.port import Answer, Chance, Choice
from schemas.company import ToolUse

CALL = "<tool_call>"
LEAST_LOGPROB = -9999.0
"""JSON has no minus infinity; this is what OpenAI says for it."""


class Untold:
    """Lets text out, but nothing from where a tool call may begin: calls are told whole, when they are parsed."""

    def __init__(self) -> None:
        self._text, self._told = "", 0

    def push(self, piece: str) -> str:
        self._text += piece
        start = self._text.find(CALL)
        end = start if start >= 0 else len(self._text) - _overlap(self._text)
        return self._tell(len(self._text[:end].rstrip()))

    def rest(self, outcome: Answer) -> str:
        self._text = outcome.content
        return self._tell(len(outcome.content))

    def _tell(self, end: int) -> str:
        words, self._told = self._text[self._told : end], max(self._told, end)
        return words


class UntoldChoices:
    """Each token's chances once: with its text, or with what comes next where the text is held back."""

    def __init__(self) -> None:
        self._waiting: list[Choice] = []
        self._seen = 0

    def push(self, choices: tuple[Choice, ...]) -> None:
        self._waiting += choices
        self._seen += len(choices)

    def take(self) -> tuple[Choice, ...]:
        taken, self._waiting = tuple(self._waiting), []
        return taken

    def rest(self, outcome: Answer) -> None:
        self.push(outcome.choices[self._seen :])


def _overlap(text: str) -> int:
    """How much of the text's end may be the beginning of a call."""
    return next((n for n in range(min(len(CALL), len(text)), 0, -1) if text.endswith(CALL[:n])), 0)


def calls_told(answer: Answer, parallel: bool | None) -> tuple[ToolUse, ...]:
    """Who does not want several gets the first."""
    return answer.calls[:1] if parallel is False else answer.calls


def tool_calls(id_: str, calls: tuple[ToolUse, ...]) -> list[dict[str, Any]]:
    return [
        {
            "index": i,
            "id": f"call_{id_.removeprefix('chatcmpl-')}_{i}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for i, call in enumerate(calls)
    ]


def logprobs(choices: tuple[Choice, ...]) -> dict[str, Any]:
    content = [
        {**_chance(choice.said), "top_logprobs": [_chance(other) for other in choice.likeliest]} for choice in choices
    ]
    return {"content": content, "refusal": None}


def _chance(chance: Chance) -> dict[str, Any]:
    """A token may be a part of a letter: its bytes are exact, its text is for people."""
    logprob = max(chance.logprob, LEAST_LOGPROB) if chance.logprob == chance.logprob else LEAST_LOGPROB
    return {
        "token": chance.token.decode(errors="replace"),
        "logprob": min(logprob, 0.0),
        "bytes": list(chance.token),
    }


def finish(answer: Answer) -> str:
    return "tool_calls" if answer.calls else answer.finish_reason


def usage(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }
