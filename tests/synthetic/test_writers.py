"""Who words requests instead of the templates: what is made before it goes stays."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from processors.synthetic.generator import Generator, WriterAway
from processors.synthetic.mix import first_mix
from rillfold.auto_lora.writers import TASK, HttpWriter


@contextmanager
def answering(answer: Callable[[str], bytes]) -> Iterator[str]:
    """A model server that says what it is told to."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = answer(asked["messages"][0]["content"].removeprefix(TASK))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chat(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def made_with(tools, writer):
    generator = Generator(tools, writer=writer)
    mix = first_mix([tool.name for tool in tools], 24, 0.7)
    return generator.learned(mix, 1, generator.held_out([]))


def test_an_endpoint_words_requests(tools):
    with answering(lambda text: chat(f'"Good day! {text}"')) as url:
        batch = made_with(tools, HttpWriter(url))
    assert sum(each.question.startswith("Good day! ") for each in batch.made) > 12 and not batch.notes


@pytest.mark.parametrize("said", [b"<html>", b"{}", b'{"choices": []}', b"[1]"], ids=["html", "empty", "none", "list"])
def test_what_is_no_answer_ends_the_asking_with_one_line(tools, said):
    with answering(lambda _: said) as url:
        batch = made_with(tools, HttpWriter(url, "m"))
    (note,) = batch.notes
    assert len(batch.made) == 24 and note.startswith(f"The writer m at {url} words nothing: ")


def test_an_endpoint_that_is_down_or_slow_ends_the_asking(tools):
    assert "words nothing" in made_with(tools, HttpWriter("http://127.0.0.1:9", seconds=2)).notes[0]
    going = threading.Event()
    with answering(lambda text: chat(text) if going.wait(5) else b"") as url:
        with pytest.raises(WriterAway, match="Timeout"):
            HttpWriter(url, seconds=0.05)("Say this.", 0.5)
        going.set()
