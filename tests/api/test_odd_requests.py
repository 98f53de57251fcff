"""No request makes a 500, whoever sends it: a table of odd ones over every route, by two companies and by nobody."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import httpx
import pytest

from rillfold.api.app import create_app
from tests.support.raw_http import get, status, talk

HALF = '"\\ud800"'
DEEP = "[" * 900 + "]" * 900
BODIES = [
    b"", b"{", b"\xff", b'"\xff"', b'{"\xff": 1}', b"null", b"[]", b"{}", b"NaN", b"-Infinity", b"1e400", b"9" * 30,
    b"9" * 5_000, HALF.encode(), f"{{{HALF}: 1}}".encode(), DEEP.encode(), b"[" * 100_000,
    b'\xef\xbb\xbf{"a": 1}', '{"a": 1}'.encode("utf-16"), b'{"a": 1, "a": 2}', b'{"a": "\\u0000"}', b"\0" * 64,
]  # fmt: skip
VALUES = [HALF, f"{{{HALF}: 1}}", DEEP, "NaN", "1e400", "9" * 30, "9" * 400, '"\\u0000"', '"' + "x" * 99_999 + '"']
TOOL = '{"tools": [{"name": "a", "endpoint": "https://a.example", %s}]}'
CALL = '{"training_data": [{"prompt": "p", "tool_calls": [{"name": "f", "arguments": @}]}]}'
# Where any value may stand, at the @.
SHAPES = {
    "/company-automation/process": [
        '{"data": {"task": "x", "data": @}}', '{"data": {"task": @}}', "{@: 1}", '{"data": {"task": "x"}, "role": @}',
        '{"data": {"task": "x"}, "job": @}', '{"data": {"task": "x"}, "session": @}',
    ],
    "/company-automation/train-adapter": [
        '{"settings": {"a": @}}', '{"training_data": [@]}', '{"base_model": @}', '{"method": @}', CALL,
        '{"training_data": [{"prompt": "p", "output": @}]}',
    ],
    "/company-automation/register-tools": [
        TOOL % '"parameters": {"a": @}', TOOL % '"description": @', TOOL % '"parameters": {"type": @}',
        TOOL % '"parameters": {"$ref": @}', '{"tools": [{"name": "a", "endpoint": @}]}',
    ],
    "/topics/company-data": [
        '{"type": "text.ingested", "text": @}', '[{"type": @}]', '{"type": "text.ingested", "text": "a", "id": @}',
        '{"type": "text.ingested", "text": "a", "time": @}', '{"type": "text.ingested", "text": "a", "company": @}',
    ],
    "/v1/chat/completions": ['{"model": @}', '{"model": "m", "messages": @}'],
    "/companies": ['{"company_id": @}', '{"company_id": "a", "name": @}'],
}  # fmt: skip
KINDS = [
    None, "", ";", "application/json; charset=utf-16", "application/x+json", "text/plain", "a/b/c", "avro/binary",
    "é/ü",
    "multipart/form-data", "application/x-www-form-urlencoded", 'application/json; boundary="', "\xff",
]  # fmt: skip
WORDS = [
    "%00", "a%00b", "%2e%2e", "..%2f..", "%252e", "%ff", "%ed%a0%80", "x" * 9_000, "%", "'", "acme%25",
    "%0d%0aX-A:%20b", "%E2%80%AE", "-1", "9" * 400, "nan", "inf", "1e400", "9223372036854775808", "[]",
    "company-data/0/9223372036854775808",
]  # fmt: skip
ENDPOINTS = [
    "https://[", "https://[::1", "https://a.example:99999", "https://a.example:x", "https://", "//", "https://a b",
    "https://.", "https://\u2100.example", "https://xn--a", "https://" + "a" * 1_900, "https://a..b", "https://%00",
    "https://\u3002", "https://a.example/\u0000", "https://[fe80::1%25eth0]", "http://\u200b", "https://a.example:",
    "https://\ud7ff.example",
]  # fmt: skip
HEADS = [
    "Content-Length: -1", "Content-Length: 1e3", "Content-Length: +1", f"Content-Length: {'9' * 5_000}",
    "Expect: nonsense", "Content-Length: 1\r\nContent-Length: 2", "Transfer-Encoding: chunked\r\nContent-Length: 3",
    "Transfer-Encoding: identity", "Transfer-Encoding: xchunked", "Transfer-Encoding : chunked", " folded: x",
    "Range: bytes=0-18446744073709551616", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x",
    "A" * 70_000, "Host: a\r\nHost: b", "X: \0",
    "Content-Length: \xb2",
]  # fmt: skip


def answered(answer: httpx.Response) -> None:
    where = f"{answer.request.method} {answer.request.url!s:.120} {answer.status_code}: {answer.text[:200]}"
    assert answer.status_code < 500 or (answer.status_code == 503 and "retry-after" in answer.headers), where
    if answer.is_error and not answer.request.url.path.endswith("ready"):
        assert {"code", "message"} <= set(answer.json()["error"]), where


def routes(api: Any) -> list[tuple[str, str, list[str]]]:
    """(method, path, names of its queries)"""
    paths = create_app(api.services).openapi()["paths"]
    return [
        (method.upper(), path, [each["name"] for each in described.get("parameters", ()) if each["in"] == "query"])
        for path, methods in paths.items()
        for method, described in methods.items()
    ]


async def test_odd_bodies_on_every_route(api) -> None:
    for method, path, _ in routes(api):
        if method == "POST":
            for key, body in product((api.acme, api.admin), BODIES):
                given = {"content": body, "headers": {"Content-Type": "application/json"}}
                answered(await api.ask(method, path.replace("{topic}", "company-data"), key, **given))


@pytest.mark.parametrize("path", SHAPES)
async def test_odd_values_where_any_json_may_stand(api, path: str) -> None:
    for shape, value in product(SHAPES[path], VALUES):
        given = {"content": shape.replace("@", value).encode(), "headers": {"Content-Type": "application/json"}}
        answered(await api.ask("POST", path, api.admin if path == "/companies" else api.acme, **given))


async def test_odd_content_types(api) -> None:
    body = json.dumps({"type": "text.ingested", "text": "x"}).encode()
    for path, kind in product(SHAPES, KINDS):
        headers = {} if kind is None else {"Content-Type": kind.encode()}
        answered(await api.ask("POST", path, api.acme, content=body, headers=headers))


async def test_odd_words_in_paths_and_queries(api) -> None:
    for (method, path, queries), word in product(routes(api), WORDS):
        parts = [word if part.startswith("{") else part for part in path.split("/")]
        if "{" in path:
            answered(await api.ask(method, "/".join(parts), api.acme))
        if method == "GET" and not path.endswith("changes"):
            for query in queries:
                answered(await api.ask(method, f"{path.replace('{name}', 'companies')}?{query}={word}", api.acme))


async def test_odd_endpoints_of_tools(api) -> None:
    for endpoint in ENDPOINTS:
        given = {"tools": [{"name": "a", "endpoint": endpoint, "auth": {"type": "bearer", "token": "t"}}]}
        answered(await api.ask("POST", "/company-automation/register-tools", api.acme, json=given))


async def test_odd_keys(api) -> None:
    for key in ("", "rk_", "rk_.", "rk_é.ü", "\xff", "rk_" + "x" * 8_000, "Bearer", ".", "rk_\x7e.x"):
        for header in (f"Authorization: Bearer {key}", f"X-API-Key: {key}", f"Authorization: {key}"):
            assert status(await talk(api.url, get("/projections", None, header))) == 401, header
    assert status(await talk(api.url, get("/projections", "rk_" + "x" * (1 << 20)))) == 400


@pytest.mark.parametrize("head", HEADS, ids=lambda head: repr(head)[:40])
async def test_odd_heads(api, head: str) -> None:
    for method in ("GET", "POST"):
        answer = await talk(api.url, get("/topics/company-data", api.acme, head, method=method), seconds=0.3)
        assert not answer or status(answer) < 500, answer[:300]


async def test_odd_methods_and_targets(api) -> None:
    for method in ("HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "X" * 100, "get"):
        for path in ("/projections", "/health", "*", "http://elsewhere.example/health", "//health", "/health/"):
            answer = await talk(api.url, get(path, api.acme, method=method), seconds=2)
            assert status(answer) < 500, (method, path, answer[:300])
            assert b"elsewhere" not in answer
