"""A thin client of the HTTP API."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec

from schemas.errors import Poison, Retry

Json = dict[str, Any]
NOT_THERE = 404
PATIENCE_SECONDS = 30.0


class ApiRefused(Poison):
    """The API said no, and why. The same request will not do better later."""

    def __init__(self, status: int, code: str, message: str, detail: object) -> None:
        super().__init__(f"{code} ({status}): {message}" + (f" {_told(detail)}" if detail else ""))
        self.status, self.code, self.detail = status, code, detail


def _told(detail: object) -> str:
    """A place and what is wrong there, for each; anything else as the API has it."""
    try:
        found = msgspec.convert(detail, list[_WrongValue])
    except msgspec.ValidationError:
        return detail if isinstance(detail, str) else msgspec.json.encode(detail).decode()
    return "; ".join(f"{'.'.join(map(str, each.where))}: {each.why}" for each in found)


class _WrongValue(msgspec.Struct):
    where: list[str | int]
    why: str


class ApiAway(Retry):
    """The API does not answer, or asks to come again. Too often is waited out once, for half a minute at most."""


class Client:
    """`async with Client("http://127.0.0.1:8700", "rk_...") as client: await client.rows("company_tools")`."""

    def __init__(self, url: str, key: str, timeout: float = 330.0) -> None:
        self._url = url
        self._http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=httpx.Timeout(timeout, connect=5.0)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def join(self, company: str, name: str = "") -> Json:
        """Registers a company; the answer has its API key."""
        return await self.ask("POST", "/companies", {"company_id": company, "name": name})

    async def register_tools(self, company: str | None, tools: Sequence[Mapping[str, Any]]) -> Json:
        given = {"company_id": company, "tools": list(tools)}
        return await self.ask("POST", "/company-automation/register-tools", given)

    async def train(self, company: str, training_data: Sequence[Any] = (), **more: Any) -> Json:
        given = {"company_id": company, "training_data": list(training_data), **more}
        return await self.ask("POST", "/company-automation/train-adapter", given)

    async def process(self, company: str | None, data: Mapping[str, Any], wait: float = 0, **more: Any) -> Json:
        given = {"company_id": company, "data": dict(data), **more}
        return await self.ask("POST", "/company-automation/process", given, {"wait": wait})

    async def job(self, company: str | None, job: str, wait: float = 0) -> Json:
        """A company's own key says whose it is."""
        whose = {} if company is None else {"company_id": company}
        return await self.ask("GET", f"/company-automation/jobs/{_part(job)}", None, {**whose, "wait": wait})

    async def cancel_job(self, company: str | None, job: str, reason: str = "", wait: float = 0) -> Json:
        """A job that has ended in another way is refused, with 409."""
        given = {"company_id": company, "reason": reason}
        return await self.ask("POST", f"/company-automation/jobs/{_part(job)}/cancel", given, {"wait": wait})

    async def adapters(self, company: str) -> Json:
        return await self.ask("GET", "/company-automation/adapters", None, {"company_id": company})

    async def produce(self, topic: str, events: Sequence[Mapping[str, Any]]) -> Any:
        return await self._send("POST", f"/topics/{_part(topic)}", list(events), None)

    async def rows(self, projection: str, **query: Any) -> Json:
        return await self.ask("GET", f"/projections/{_part(projection)}", None, query)

    async def row(self, projection: str, key: str, **query: Any) -> Json:
        place = "/".join(map(_part, key.split("/")))
        return await self.ask("GET", f"/projections/{_part(projection)}/{place}", None, query)

    async def found(self, projection: str, key: str) -> Json | None:
        """The row alone; None where there is none, or it is another's."""
        try:
            found: Json = (await self.row(projection, key))["row"]
        except ApiRefused as error:
            if error.status == NOT_THERE:
                return None
            raise
        return found

    async def changes(self, projection: str, **query: Any) -> AsyncIterator[Json]:
        """Rows as they change, until the key is known no more."""
        path = f"/projections/{_part(projection)}/changes"
        async with self._http.stream("GET", path, params=query, timeout=httpx.Timeout(None, connect=5.0)) as answer:
            if answer.is_error:
                await answer.aread()
                _raise(answer)
            event = ""
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    event = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    told = msgspec.json.decode(line.removeprefix("data: "))
                    if event == "error":
                        raise ApiRefused(401, told["error"]["code"], told["error"]["message"], None)
                    yield told

    async def ask(self, method: str, path: str, given: Any = None, query: Mapping[str, Any] | None = None) -> Json:
        answer: Json = await self._send(method, path, given, query)
        return answer

    async def _send(self, method: str, path: str, given: Any, query: Mapping[str, Any] | None) -> Any:
        body = None if given is None else msgspec.json.encode(given)
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            answer = await self._http.request(method, path, content=body, params=query, headers=headers)
            if answer.status_code == 429 and (pause := _pause(answer)) <= PATIENCE_SECONDS:
                # It was turned away at the entry, so nothing of it was done: once more, when the API says.
                await asyncio.sleep(pause)
                answer = await self._http.request(method, path, content=body, params=query, headers=headers)
        except httpx.HTTPError as error:
            raise ApiAway(unanswered(self._url, error, "Start it: `rillfold up`, or `rillfold api`.")) from error
        if answer.is_error:
            _raise(answer)
        return msgspec.json.decode(answer.content)


def unanswered(url: str, error: httpx.HTTPError, start: str) -> str:
    """What to do about it: whoever met something else there need not `start` anything."""
    causes = list(_causes(error))
    if isinstance(error, httpx.UnsupportedProtocol):
        return f"{url} is no address of an API: {error}"
    if isinstance(error, httpx.TimeoutException):
        return f"{url} does not answer ({str(error) or type(error).__name__}). {start}"
    # Nobody resets a connection, or speaks of TLS, where nobody is.
    if any(isinstance(each, OSError) and not isinstance(each, ssl.SSLError | ConnectionResetError) for each in causes):
        return f"{url} does not answer ({error}). {start}"
    told = str(error) or "it closed the connection"
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in causes):
        return f"{url} has a certificate that is not of this host, or by nobody who is trusted here ({told})."
    remedy = "Look at the scheme (http or https) and the port; or it ended while it was asked."
    return f"Something answers at {url}, but not as it should ({told}). {remedy}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _part(word: str) -> str:
    """One part of a path, whatever the word is: `..` would climb out of it."""
    return quote(word, safe="").replace(".", "%2E")


def _pause(answer: httpx.Response) -> float:
    """Seconds; a date, or nothing at all, is a second."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1.0


def _raise(answer: httpx.Response) -> None:
    try:
        error = msgspec.json.decode(answer.content)["error"]
    except (msgspec.DecodeError, KeyError, TypeError):
        error = {"code": "unknown", "message": answer.text[:200]}
    if answer.status_code in (429, 503):
        again = f" Come again in {_pause(answer):.0f} s." if "retry-after" in answer.headers else ""
        raise ApiAway(f"{error['code']} ({answer.status_code}): {error['message']}{again}")
    raise ApiRefused(answer.status_code, error["code"], error["message"], error.get("detail"))
