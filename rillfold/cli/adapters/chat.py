"""`rillfold chat`: a conversation with a company's adapter, or with the base model, in the terminal."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import click
import httpx

from gpu_workers.serve.port import AdapterKey
from rillfold.cli.terminal.given import COMPANY, MOST, ROLE, Number
from rillfold.cli.terminal.plain import plain
from rillfold.client import unanswered
from rillfold.http.keys import ApiKeys
from rillfold.http.operator import operator_of
from rillfold.profiles import way_to_api
from rillfold.settings import Settings, from_env
from rillfold.workers.listener import LOOPBACK
from schemas.errors import Poison, Retry

Message = dict[str, Any]
SECONDS = httpx.Timeout(300.0, connect=3.0)
NOT_THERE = (
    " Asked was {}: `rillfold adapters list` names what there is, `rillfold train` makes one, and the key must be its "
    "company's."
)


class ChatRefused(Poison):
    """The server does not answer this, and says why."""


class ServerAway(Retry):
    """Nobody answers at the address."""


@click.command()
@click.argument("text", required=False)
@click.option("--company", type=COMPANY, help="Whose adapter answers; without it the base model does.")
@click.option("--role", type=ROLE, show_default="default", help="Which of the company's adapters.")
@click.option("--version", type=click.IntRange(1, MOST), help="This one, whichever answers for the role.")
@click.option("--url", help="A serving worker's address, http://HOST:PORT; otherwise the API is asked.")
@click.option("--max-tokens", default=256, show_default=True, type=click.IntRange(1, MOST))
@click.option("--temperature", default=0.0, show_default=True, type=Number(0, 2))
def chat(
    text: str | None, company: str | None, role: str | None, version: int | None, url: str | None, **drawing: Any
) -> None:
    """Talk to a model: one answer to TEXT, or a conversation until Ctrl-D."""
    named = _adapter(company, role, version)
    with _client(from_env(), url) as http:
        model = named or _base(http)
        said: list[Message] = []
        for question in [text] if text else _typed(model):
            said.append({"role": "user", "content": question})
            answer = ""
            for piece in _pieces(http, {"model": model, "messages": said, "stream": True, **drawing}):
                click.echo(plain(piece), nl=False)
                answer += piece
            click.echo()
            said.append({"role": "assistant", "content": answer})


def _adapter(company: str | None, role: str | None, version: int | None) -> str | None:
    """None: the base model, and only where nothing of an adapter was said."""
    if company is None:
        if (given := "--role" if role is not None else None if version is None else "--version") is not None:
            raise click.UsageError(f"{given} is of a company's adapter: give --company too, or leave it out.")
        return None
    adapter = f"{company}/{'default' if role is None else role}"
    return adapter if version is None else str(AdapterKey(adapter, version))


def _client(settings: Settings, url: str | None) -> httpx.Client:
    if url is not None:
        # Only to this machine: the token is not for whoever stands at some other address.
        token = operator_of(settings).token if _host(url) in LOOPBACK else settings.serve_token
        return _http(url, token or None)
    way, file = way_to_api(settings), ApiKeys.of(settings.data_dir).admin_key_file
    for doubt in way.doubts:
        click.echo(plain(f"rillfold: {doubt}"), err=True)
    key = way.key or (file.read_text().strip() if file.exists() else "")
    return _http(way.url, key)


def _host(url: str) -> str:
    told = f"--url {url}: write http://HOST:PORT"
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise click.UsageError(f"{told}: {error}.") from error
    if parts.scheme not in ("http", "https") or not host:
        raise click.UsageError(f"{told}, with http:// or https:// before it.")
    if parts.path.rstrip("/").endswith("/v1"):
        raise click.UsageError(f"{told}, without the /v1, which is added here.")
    return host


def _http(address: str, token: str | None) -> httpx.Client:
    bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=address, headers=bearer, timeout=SECONDS, trust_env=False)


def _base(http: httpx.Client) -> str:
    with _asked(http, "GET", "/v1/models", None) as answer:
        answer.read()
        listed = answer.json()["data"]
        if not listed:
            raise ChatRefused(f"{http.base_url} serves nothing that you may ask.")
        return str(listed[0]["id"])


@contextmanager
def _asked(http: httpx.Client, method: str, path: str, body: dict[str, Any] | None) -> Iterator[httpx.Response]:
    try:
        with http.stream(method, path, json=body) as answer:
            if answer.is_error:
                answer.read()
                remedy = NOT_THERE.format(body["model"]) if body and answer.status_code == 404 else ""
                raise ChatRefused(f"{answer.url} answered {answer.status_code}: {_reason(answer)}{remedy}")
            yield answer
    except httpx.TransportError as error:
        start = "Start `rillfold api` and `rillfold worker serve`, or `rillfold serve` and give its address with --url."
        raise ServerAway(unanswered(str(http.base_url), error, start)) from error


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]


def _typed(model: str) -> Iterator[str]:
    click.echo(f"{model}: Ctrl-D ends.", err=True)
    while True:
        click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _pieces(http: httpx.Client, body: dict[str, Any]) -> Iterator[str]:
    """Text as it comes; a tool call as the line that it would be."""
    with _asked(http, "POST", "/v1/chat/completions", body) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise ChatRefused(str(event["error"]["message"]))
            for choice in event["choices"]:
                yield choice["delta"].get("content") or ""
                for call in choice["delta"].get("tool_calls", ()):
                    yield f"{call['function']['name']}({call['function']['arguments']})\n"
