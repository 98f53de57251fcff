"""A worker's own listener: who may ask what, under which name; and the operator's token, made once."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from rillfold.cli.adapters.chat import _client
from rillfold.http.hosts import is_known, known_hosts
from rillfold.http.operator import Operator, operator_of, token_file
from rillfold.settings import Settings
from rillfold.workers.listener import Answers, listening
from schemas.errors import Stop
from streams.owner.glance import Proof
from tests.support.raw_http import get, status, talk

TOKEN = "the-token"
PROOF = Proof(1, {"secret": 1}, ("t", 0, 1), {})


def found(projection: str, key: str) -> Proof | None:
    return PROOF if (projection, key) == ("companies", "acme/x") else None


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    answers = Answers(lambda: None, CollectorRegistry(), Operator(TOKEN, known_hosts("watch.example")), found)
    with listening(answers, "127.0.0.1", 0, tmp_path / "told.json") as url:
        yield url


async def test_rows_take_the_operators_token(url: str) -> None:
    for path in ("/rows/companies/acme%2Fx", "/rows/companies/acme%2Fx?x", "//rows/companies/acme%2Fx", "/rows/no/no"):
        for key in (None, "", "wrong", TOKEN + "x", "\xff"):
            answer = await talk(url, get(path, key))
            assert status(answer) in (401, 404), answer
            assert b"secret" not in answer
    answer = await talk(url, get("/rows/companies/acme%2Fx", TOKEN))
    assert status(answer) == 200 and b"secret" in answer
    for open_to_all in ("/health", "/ready", "/metrics"):
        assert status(await talk(url, get(open_to_all))) == 200


async def test_a_name_that_is_none_of_ours_is_refused(url: str) -> None:
    for host, code in (
        ("evil.example", 421),
        ("watch.example:9", 200),
        ("localhost", 200),
        ("[::1]:8", 200),
        ("", 421),
    ):
        for path in ("/metrics", "/rows/companies/acme%2Fx"):
            asked = get(path, TOKEN).replace(b"Host: 127.0.0.1", f"Host: {host}".encode())
            assert status(await talk(url, asked)) == code, host
        asked = get("/health").replace(b"Host: 127.0.0.1", f"Host: {host}".encode())
        assert status(await talk(url, asked)) == 200


async def test_odd_requests_leave_it_answering(url: str) -> None:
    for path in ("/rows/%ff/%00", "/" + "x" * 60_000, "/rows/" + "%2f" * 9_000, "/rows/companies/" + "x" * 70_000):
        answer = await talk(url, get(path, TOKEN), seconds=5)
        assert not answer or status(answer) < 500, answer[:200]
    many = b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n"
    for odd in (b"\0\0\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", many):
        await talk(url, odd, seconds=2)
    assert status(await talk(url, get("/health"))) == 200


def test_hosts() -> None:
    known = known_hosts("serve", "", " Api.Example ")
    for host in ("serve", "serve:8701", "api.example", "LOCALHOST:1", "127.0.0.1", "[::1]:2", "10.1.2.3:80"):
        assert is_known(host, known), host
    foreign = (
        "",
        ":80",
        "serve.evil.example",
        "evil",
        "127.0.0.1.evil",
        "[",
        "x@y:z",
        "serve@evil",
        "127.0.0.1:80@evil",
    )
    for host in (None, *foreign):
        assert not is_known(host, known), host


MAKING = """
import sys
from pathlib import Path
from rillfold.http.operator import operator_of
from rillfold.settings import Settings
print(operator_of(Settings(data_dir=Path(sys.argv[1]))).token)
"""


def test_the_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    line = [sys.executable, "-c", MAKING, str(tmp_path)]
    running = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = {process.communicate(timeout=120)[0].strip() for process in running}
    assert told == {token_file(tmp_path).read_text()}
    assert len(told.pop()) > 40
    assert stat.S_IMODE(token_file(tmp_path).stat().st_mode) == 0o600
    assert [each.name for each in token_file(tmp_path).parent.iterdir()] == ["token"]
    assert operator_of(Settings(data_dir=tmp_path, serve_token="other")).token == "other"


def test_an_empty_token_opens_nothing(tmp_path: Path) -> None:
    token_file(tmp_path).parent.mkdir(parents=True)
    token_file(tmp_path).write_text("")
    with pytest.raises(Stop, match="is empty: delete it"):
        operator_of(Settings(data_dir=tmp_path))


def test_chat_sends_the_token_to_this_machine_and_to_no_other(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    with _client(settings, "http://127.0.0.1:8701") as here, _client(settings, "http://elsewhere.example") as there:
        assert here.headers["Authorization"] == f"Bearer {operator_of(settings).token}"
        assert "Authorization" not in there.headers
