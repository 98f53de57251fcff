"""Who else may word requests: any OpenAI-compatible model, or the base itself. The templates' words are the draft."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import httpx

from processors.synthetic.generator import WriterAway
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


class HttpWriter:
    """`url` ends before /v1."""

    def __init__(
        self, url: str, model: str = "default", token: str = "", top_p: float = 1.0, seconds: float = SECONDS
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=seconds, trust_env=False)
        self._url, self._model, self._top_p = url, model, top_p

    def __call__(self, text: str, temperature: float) -> str:
        """Raises WriterAway."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": TASK + text}],
            "max_tokens": TOKENS,
            "temperature": temperature,
            "top_p": self._top_p,
        }
        try:
            answer = self._http.post("/v1/chat/completions", json=body).raise_for_status().json()
            return said(str(answer["choices"][0]["message"]["content"] or ""))
        except (httpx.HTTPError, httpx.InvalidURL, json.JSONDecodeError, LookupError, TypeError) as error:
            raise WriterAway(f"The writer {self._model} at {self._url} words nothing: {error!r:.200}.") from error


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
