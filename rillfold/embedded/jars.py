"""Java libraries, exactly those that `jars.lock` names, fetched once into the user's cache and checked at each use."""

import hashlib
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from rillfold.embedded.errors import JarError

LOCK = Path(__file__).with_name("jars.lock")
# (file name, bytes in all) -> a context that yields "so many bytes more have come"
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Jar(NamedTuple):
    group: str
    name: str
    version: str
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        return f"{self.name}-{self.version}.jar"

    @property
    def coordinate(self) -> str:
        return f"{self.group}:{self.name}:{self.version}"


def locked(name: str, lock: Path = LOCK) -> list[Jar]:
    """The jars of one set: `kafka`, or another that the lock names."""
    sets = tomllib.loads(lock.read_text())
    if name not in sets:
        raise JarError(f"{lock.name} has no set {name!r}; it has {', '.join(sets)}.")
    return [_parse(line) for line in sets[name]["jars"]]


def _parse(line: str) -> Jar:
    coordinate, sha256, size = line.split()
    group, name, version = coordinate.split(":")
    return Jar(group, name, version, sha256, int(size))


def resolve(
    name: str,
    cache: Path,
    *,
    repository: str | None = None,
    progress: Progress | None = None,
    lock: Path = LOCK,
) -> list[Path]:
    """The class path of a set: every file is in the cache and has the locked hash. Offline when nothing is missing."""
    jars = locked(name, lock)
    absent = missing(jars, cache)
    if absent:
        _fetch_all(absent, cache, repository, progress)
    return [_place(jar, cache) for jar in jars]


def missing(jars: Iterable[Jar], cache: Path) -> list[Jar]:
    """Not there, or there and damaged."""
    jars = list(jars)
    with ThreadPoolExecutor(4) as pool:
        hashes = pool.map(lambda jar: _sha256(_place(jar, cache)), jars)
        return [jar for jar, found in zip(jars, hashes, strict=True) if found != jar.sha256]


def _place(jar: Jar, cache: Path) -> Path:
    return cache / "jars" / jar.sha256[:16] / jar.filename


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _fetch_all(jars: list[Jar], cache: Path, repository: str | None, progress: Progress | None) -> None:
    (cache / "jars").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as scratch, ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda jar: _fetch(jar, cache, Path(scratch), repository, progress), jars):
            pass


def _fetch(jar: Jar, cache: Path, scratch: Path, repository: str | None, progress: Progress | None) -> None:
    """Into a scratch folder first: the cache only ever holds whole files with the right hash."""
    from jgo.maven import MavenContext, PythonResolver
    from requests import RequestException

    context = MavenContext(
        resolver=PythonResolver(progress_callback=progress),
        repo_cache=scratch,
        remote_repos={"mirror": repository} if repository else None,
    )
    try:
        fetched = context.project(jar.group, jar.name).at_version(jar.version).artifact().resolve()
    except RequestException as error:
        raise JarError(
            f"{jar.coordinate} is not in the cache ({cache}) and could not be fetched: {_reason(error)}. "
            "Connect this machine to the network once, or set RILLFOLD_MAVEN_REPOSITORY to a mirror."
        ) from error
    except RuntimeError as error:
        raise JarError(f"{jar.coordinate} is not in the Maven repository. Set RILLFOLD_MAVEN_REPOSITORY.") from error
    found = _sha256(fetched)
    if found != jar.sha256:
        raise JarError(
            f"{jar.coordinate} came with sha256 {found}, but the lock says {jar.sha256}. It was not used: "
            "look at who answers for the repository before you try again."
        )
    place = _place(jar, cache)
    place.parent.mkdir(parents=True, exist_ok=True)
    fetched.replace(place)


def _reason(error: Exception) -> str:
    return type(error).__name__
