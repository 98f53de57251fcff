"""Runs a model's own chat template: text that came with weights, so it may touch nothing, and must come to an end."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gpu_workers.errors import MessageRefused

SECONDS = 10.0
"""So long one rendering may take, on a machine that is busy with others."""
LETTERS, LETTERS_A_LETTER = 1_000_000, 16
"""What a template may write: so many of its own, and so many for each that it was given."""


class Sandbox:
    """One template, compiled once. Raises `TemplateError` where it is none."""

    def __init__(self, template: str, words: Mapping[str, str]) -> None:
        """`words`: what it calls the tokenizer's special tokens, such as bos_token."""
        self._words = dict(words)
        self._template = _Bounded().from_string(template)

    def render(self, letters: int, **given: Any) -> str:
        """`letters`: of what is given. Raises `MessageRefused` for whatever the template does not take."""
        environment = self._template.environment
        assert isinstance(environment, _Bounded)
        environment.until = time.monotonic() + SECONDS
        most, written, pieces = LETTERS + LETTERS_A_LETTER * letters, 0, []
        try:
            for piece in self._template.generate(**self._words, **given):
                pieces.append(piece)
                if (written := written + len(piece)) > most:
                    raise MessageRefused(f"the model's own chat template writes over {most} letters.")
                environment.must_not_be_late()
        except MessageRefused:
            raise
        except Exception as error:  # a template is a program, and any of its steps may fail
            why = f"{type(error).__name__}: {error}"[:500]
            raise MessageRefused(f"the model's own chat template does not take this: {why}") from error
        return "".join(pieces)


class _Bounded(ImmutableSandboxedEnvironment):
    """As transformers sets one up, without a clock: what day it is would make two trainings of one dataset differ."""

    intercepted_binops = frozenset(["*", "**"])

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension])
        self.until = 0.0
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _refuse

    def must_not_be_late(self) -> None:
        if time.monotonic() > self.until:
            raise MessageRefused(f"the model's own chat template takes over {SECONDS:.0f} seconds.")

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        self.must_not_be_late()
        return super().call(context, obj, *args, **kwargs)

    def getattr(self, obj: Any, attribute: str) -> Any:
        self.must_not_be_late()
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.must_not_be_late()
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Numbers alone, and small ones: a text times a number may be all the memory that there is."""
        if not all(isinstance(each, int | float) and abs(each) < 10_000 for each in (left, right)):
            raise TemplateError(f"{operator} of other than small numbers")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """Some templates mark what the assistant says. We know it without."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    """Without Jinja's escapes for HTML."""
    kept = {name: more[name] for name in ("separators", "sort_keys") if name in more}
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **kept)


def _refuse(message: str) -> None:
    raise TemplateError(message)
