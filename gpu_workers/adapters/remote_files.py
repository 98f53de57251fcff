"""Files behind a URL of fsspec. What is late or away is asked again, and is then an error that says so."""

import errno
import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from secrets import token_hex
from threading import Thread
from typing import Any, TypeVar

from gpu_workers.errors import NO_ROOM, ArtifactRefused, NoSuchStore, StoreAway, StoreTakesNothing

log = logging.getLogger(__name__)
Found = TypeVar("Found")
Beat = Callable[[], None]
READ_PAUSES, WRITE_PAUSES = (0.5,), (0.5, 1.0, 2.0, 4.0, 8.0)
"""Between the times that it is asked, in seconds: who reads has somebody waiting, who writes has made something."""
SILENT_SECONDS = 20.0
"""So long a store may say nothing before it counts as away. A file that is sent has a second more for each SLOWEST
bytes: packages say a word only when all of it is there, and who tries again beside the first makes both slower."""
SLOWEST = 1 << 20
CLOSED = (*NO_ROOM, errno.EROFS, errno.EACCES, errno.EPERM)
SECRET = re.compile(r"://[^/@]*@")
"""A user's name and password, where an address holds them: they are for nobody's log."""


class RemoteFiles:
    """May block for minutes: it is called in a thread."""

    def __init__(
        self,
        url: str,
        read_pauses: Sequence[float] = READ_PAUSES,
        write_pauses: Sequence[float] = WRITE_PAUSES,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self.url = SECRET.sub("://", url.rstrip("/"))
        self._system, self._root = _opened(url, self.url)
        self._read, self._write, self._silent = read_pauses, write_pauses, silent_seconds

    def read(self, name: str, most: int) -> bytes:
        """A small file, whole. Raises FileNotFoundError where there is none."""
        body = self._asked(name, lambda _beat: self._beginning(self._at(name), most + 1))
        if len(body) > most:
            raise ArtifactRefused(f"{self.url}/{name}: is larger than {most} bytes.")
        return body

    def _beginning(self, at: str, most: int) -> bytes:
        """Of an empty file S3 knows none."""
        try:
            return bytes(self._system.cat_file(at, end=most))
        except OSError as error:
            if error.errno != errno.EINVAL or self._system.info(at)["size"]:
                raise
            return b""

    def fetch(self, name: str, to: Path, most: int) -> None:
        """A large one. It is called `to` once all of it has come; what an earlier attempt left is never part of it."""

        def come(beat: Beat) -> None:
            draft = to.with_name(f".{token_hex(4)}-{to.name}")
            try:
                self._system.get_file(self._at(name), str(draft), callback=_told(beat, most, f"{self.url}/{name}"))
                draft.rename(to)
            finally:
                draft.unlink(missing_ok=True)

        self._asked(name, come)

    def send(self, source: Path, name: str) -> None:
        """Overwrites: what lies under a name here has one content for ever. Raises `StoreTakesNothing` too."""

        def put(beat: Beat) -> None:
            self._system.put_file(str(source), self._at(name), callback=_told(beat))

        try:
            self._tried(put, self._write, source.stat().st_size / SLOWEST)
        except (NotImplementedError, OSError) as error:
            raise StoreTakesNothing(
                f"adapter store {self.url} takes no {name}: {_why(error)}. Make room there, let this installation "
                f"write there, or correct the address; {source} is kept here and sent when it is put again."
            ) from error

    def remove(self, name: str) -> None:
        """Raises `StoreTakesNothing` too."""
        try:
            self._tried(lambda _beat: self._system.rm_file(self._at(name)), self._read)
        except FileNotFoundError:
            pass
        except (NotImplementedError, OSError) as error:
            raise StoreTakesNothing(
                f"adapter store {self.url} lets nobody take {name} away: {_why(error)}. Let this installation do so."
            ) from error

    def _asked(self, name: str, work: Callable[[Beat], Found]) -> Found:
        try:
            return self._tried(work, self._read)
        except FileNotFoundError:
            raise
        except (NotImplementedError, OSError) as error:
            raise StoreAway(f"adapter store {self.url} does not give {name}: {_why(error)}.") from error

    def _tried(self, work: Callable[[Beat], Found], pauses: Sequence[float], more_seconds: float = 0.0) -> Found:
        for pause in (*pauses, None):
            try:
                return _within(self._silent + more_seconds, work)
            except (FileNotFoundError, PermissionError, NotImplementedError, ArtifactRefused):
                raise
            except Exception as error:  # whatever its package calls it
                if isinstance(error, OSError) and error.errno in CLOSED:
                    raise
                if pause is None:
                    told = f"adapter store {self.url} does not answer, asked {len(pauses) + 1} times"
                    raise StoreAway(f"{told}: {_why(error)}. Is the address right, and is it up?") from error
                log.warning("adapter store %s: %s; asked again", self.url, _why(error))
                time.sleep(pause)
        raise AssertionError("the last pause is None")

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _opened(url: str, told: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # only where there is a URL

    try:
        system, root = url_to_fs(url)
    except ImportError as error:
        raise NoSuchStore(f"adapter store {told}: a package is missing: {error}.") from error
    except Exception as error:  # of whatever package the address names
        raise NoSuchStore(f"adapter store {told} (RILLFOLD_ADAPTER_STORE) is no address: {_why(error)}.") from error
    return system, str(root).rstrip("/")


def _told(beat: Beat, most: int | None = None, where: str = "") -> Any:
    from fsspec.callbacks import Callback

    def heard(_size: int | None, value: int, **_more: object) -> None:
        if most is not None and value > most:
            raise ArtifactRefused(f"{where}: is larger than {most} bytes.")
        beat()

    return Callback(hooks={"heard": heard})


def _within(seconds: float, work: Callable[[Beat], Found]) -> Found:
    """In a thread of its own, which is left behind when the store falls silent: nobody can end it."""
    said: SimpleQueue[Callable[[], Found] | None] = SimpleQueue()

    def run() -> None:
        try:
            found = work(lambda: said.put(None))
        except BaseException as error:
            said.put(_raising(error))
        else:
            said.put(lambda: found)

    Thread(target=run, daemon=True, name="adapter-store").start()
    while True:
        try:
            word = said.get(timeout=seconds)
        except Empty:
            raise TimeoutError(f"it said nothing for {seconds:g} seconds") from None
        if word is not None:
            return word()


def _raising(error: BaseException) -> Callable[[], Any]:
    def again() -> Any:
        raise error

    return again


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]
