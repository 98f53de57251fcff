"""A model of others behind an OpenAI-compatible endpoint, asked one thing at a time."""

import json
from typing import Any
from urllib.parse import urlsplit

import httpx

from gpu_workers.errors import NoAddress
from processors.errors import ModelAway


class ChatEndpoint:
    """`url` with its /v1, as OpenAI's clients want it, or without. `who`: what it is here, such as the judge."""

    def __init__(self, who: str, url: str, model: str, token: str, seconds: float) -> None:
        if not url.startswith(("http://", "https://")) or not urlsplit(url).hostname:
            raise NoAddress(f"{who} at {url!r:.200}: that is no address. Give one like http://127.0.0.1:8000.")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        root = url.rstrip("/").removesuffix("/v1")
        self._http = httpx.Client(base_url=root, headers=headers, timeout=seconds, trust_env=False)
        self._named, self._model = f"{who} {model} at {url}", model

    def says(self, messages: list[dict[str, str]], max_tokens: int, **more: Any) -> str:
        """Raises ModelAway: it is down, slow, or says what is no answer."""
        body = {"model": self._model, "messages": messages, "max_tokens": max_tokens, **more}
        try:
            answer = self._http.post("/v1/chat/completions", json=body).raise_for_status().json()
            return str(answer["choices"][0]["message"]["content"] or "")
        except (httpx.HTTPError, httpx.InvalidURL, json.JSONDecodeError, LookupError, TypeError) as error:
            raise ModelAway(f"{self._named} gives no answer: {error!r:.200}.") from error

    def nonsense(self, said: str) -> ModelAway:
        return ModelAway(f"{self._named} talks nonsense: {said!r:.100}.")
