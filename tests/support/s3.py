"""S3, which cannot run here: moto's server keeps the objects and speaks its protocol over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import fsspec
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
MIB = 1 << 20
KEYS = {"key": "a-test", "secret": "a-test"}


class FakeS3:
    """Moto's, and what goes wrong in front of it."""

    def __init__(self) -> None:
        self.read_only = False
        self.silent: threading.Event | None = None
        """Nothing is answered until it is set."""
        self.a_mib = 0.0
        """Seconds that each MiB takes which is sent to it, before a word is said."""
        self.puts = 0
        """Of more than a MiB."""
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        if self.silent is not None:
            self.silent.wait(30)
        if self.read_only and environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(DENIED)))])
            return [DENIED]
        if (size := int(environ.get("CONTENT_LENGTH") or 0)) > MIB and environ["REQUEST_METHOD"] == "PUT":
            self.puts += 1
            time.sleep(self.a_mib * size / MIB)
        return self._moto(environ, start)


@pytest.fixture(scope="session")
def s3() -> Iterator[FakeS3]:
    """Told to s3fs as FSSPEC_S3_ENDPOINT_URL, FSSPEC_S3_KEY and FSSPEC_S3_SECRET tell it."""
    server, before = FakeS3(), fsspec.config.conf.get("s3", {})
    fsspec.config.conf["s3"] = {**KEYS, "endpoint_url": server.url}
    yield server
    fsspec.config.conf["s3"] = before
    server.stop()


@pytest.fixture
def bucket(s3: FakeS3, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty one, by its name."""
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    owner().mkdir(name)
    yield name
    s3.read_only, s3.silent, s3.a_mib = False, None, 0.0


def owner() -> Any:
    """Who keeps the bucket, from another machine: nothing that we remember of it is his."""
    return fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
