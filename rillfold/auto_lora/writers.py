"""Who else may word requests and judge what was made: any OpenAI-compatible model; and the base itself words, too."""

from __future__ import annotations

from itertools import count
from typing import Any

from gpu_workers.evaluate.endpoint import ChatEndpoint
from processors.synthetic.checks import Tools
from processors.synthetic.making import Made
from rillfold.auto_lora.config import TrainingConfig
from rillfold.settings import from_env
from schemas.company import Message

SECONDS = 20.0
"""For one request: whoever is slower is away."""
TOKENS = 160
LONGEST = 2_000
"""Letters of a request that is still one."""
TASK = (
    "Say the following request in other words, as a person would write it to a colleague. Keep every name, number, "
    "code and date exactly as it is, leave nothing out and add nothing. Answer with the request alone.\n\n"
)
VERDICT_TOKENS = 8
CHECK = (
    "Tools:\n{tools}\n\nA conversation, with calls in brackets:\n{talk}\n\nIs each call what was asked for, with the "
    "values that were said, and are there calls only where a tool fits? Answer yes or no, and nothing else."
)


class HttpWriter:
    """`url` ends before /v1."""

    def __init__(
        self, url: str, model: str = "default", token: str = "", top_p: float = 1.0, seconds: float = SECONDS
    ) -> None:
        self._endpoint, self._top_p = ChatEndpoint("the writer", url, model, token, seconds), top_p

    def __call__(self, text: str, temperature: float) -> str:
        """Raises ModelAway."""
        asked = [{"role": "user", "content": TASK + text}]
        return said(self._endpoint.says(asked, TOKENS, temperature=temperature, top_p=self._top_p))


class HttpCheck:
    """A model that judges what was made, after the rules. `url` ends before /v1."""

    def __init__(self, url: str, model: str = "default", token: str = "", seconds: float = SECONDS) -> None:
        self._endpoint = ChatEndpoint("the judge", url, model, token, seconds)

    def __call__(self, made: Made, tools: Tools) -> str | None:
        """Raises ModelAway, also where it says neither yes nor no."""
        offered = "\n".join(f"{tool.name}: {tool.description}" for tool in tools.values())
        talk = "\n".join(_line(message) for message in made.messages)
        asked = [{"role": "user", "content": CHECK.format(tools=offered, talk=talk)}]
        verdict = self._endpoint.says(asked, VERDICT_TOKENS, temperature=0)
        word = verdict.strip().strip(".!\"'*").partition(" ")[0].rstrip(",.").lower()
        if word not in ("yes", "no"):
            raise self._endpoint.nonsense(verdict)
        return None if word == "yes" else "the judge says no"


def _line(message: Message) -> str:
    calls = "".join(f" [{use.name} {use.arguments}]" for use in message.tool_calls)
    return f"{message.role}: {message.content}{calls}"


class BaseWriter:
    """The base model of a configuration, through the engine that serves."""

    def __init__(self, config: TrainingConfig) -> None:
        from gpu_workers.bases.before_torch import settle

        settle()
        from gpu_workers.bases import load
        from gpu_workers.bases.chat import Chat
        from gpu_workers.bases.device import Device
        from gpu_workers.serve.engine.decoder import Decoder
        from gpu_workers.serve.engine.engine import Engine
        from gpu_workers.serve.engines.asked import Base, RowMaker
        from gpu_workers.serve.schedule.rows import Limits

        settings = from_env()
        model, tokenizer, _ = load.load(config.base(settings), settings.cache_dir, Device.best(config.cores()))
        self._chat, decoder = Chat.of(tokenizer, model.generation_config.eos_token_id), Decoder(model)
        self._rows = RowMaker(self._chat, Base("base", "", decoder.context))
        self._engine = Engine(decoder, self._chat.ends, Limits(rows=1))
        self._tickets, self._config = count(), config

    def __call__(self, text: str, temperature: float) -> str:
        from gpu_workers.serve.port import Question

        ticket = next(self._tickets)
        asked = Question(
            id=str(ticket),
            messages=(Message(role="user", content=TASK + text),),
            max_tokens=TOKENS,
            temperature=temperature,
            top_p=self._config.top_p,
            seed=self._config.seed + ticket,
        )
        row: Any = self._rows.row(ticket, asked, None, None)
        self._engine.submit(row)
        while self._engine.busy():
            self._engine.step()
        return said(self._chat.decode([token for token in row.said if token not in self._chat.ends]))


def said(answer: str) -> str:
    """One line, without the marks that models put around it; what is too long is nothing."""
    text = " ".join(answer.split()).strip("\"'` ")
    return text if len(text) <= LONGEST else ""
