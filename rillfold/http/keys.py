"""API keys: `rk_<id>.<secret>`. The file holds their hashes; a key is shown once, when it is made."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from rillfold.written import alone, replaced
from schemas.errors import Poison, Stop

ADMIN = None


class KeysDamaged(Stop):
    """The file of keys cannot be read. Nobody is let in: a part of it is worse than nothing."""

    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(
            f"{path} is damaged ({error}). Restore it from a backup, or move it aside: `rillfold api` then makes a new "
            f"admin key, and `rillfold key new` new keys for companies."
        )


class NoSuchKey(Poison):
    """No key has this id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"There is no key {key_id[:80]!r}: `rillfold key list` shows those that there are.")


class Principal(msgspec.Struct, frozen=True):
    """Who asks. A company, or the admin of all of them."""

    company: str | None

    @property
    def admin(self) -> bool:
        return self.company is ADMIN

    def may(self, company: str) -> bool:
        return self.admin or self.company == company


class Listed(msgspec.Struct, frozen=True):
    """What may be told of a key. `made_at` is in microseconds; None: before keys said so."""

    id: str
    company: str | None
    made_at: int | None


class _Stored(msgspec.Struct, frozen=True):
    id: str
    company: str | None
    sha256: str
    made_at: int | None = None


class ApiKeys:
    """A file of hashes that only its owner reads; random keys of 256 bits need no slow hash.

    Any number of processes may read and change it: who changes it does so alone, and the others see it at once.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "keys.json"
        self._lock = folder / "keys.lock"
        self.admin_key_file = folder / "admin.key"
        """Whoever owns the data folder is the admin."""
        self._read: tuple[int, int, int] | None = None
        self._known: dict[str, _Stored] = {}

    @classmethod
    def of(cls, data_dir: Path) -> ApiKeys:
        return cls(data_dir / "api")

    def who(self, key: str) -> Principal | None:
        key_id, _, secret = key.removeprefix("rk_").partition(".")
        self._reload()
        stored = self._known.get(key_id)
        # An unknown id costs the same work as a wrong secret.
        right = hmac.compare_digest(stored.sha256 if stored else hash_of(""), hash_of(secret))
        return Principal(stored.company) if stored and right else None

    def list(self, company: str | None = None) -> list[Listed]:
        """All keys, or one company's, the oldest first."""
        self._reload()
        found = (Listed(each.id, each.company, each.made_at) for each in self._known.values())
        return [each for each in found if company is None or each.company == company]

    def make(self, company: str | None) -> str:
        with self._changing() as known:
            return _add(known, company)

    def rotate(self, key_id: str) -> str:
        """A new key for whom the old one was; the old one is known no more."""
        with self._changing() as known:
            key = _add(known, _taken(known, key_id).company)
            if self._of_the_file() == key_id:
                replaced(self.admin_key_file, key.encode())
            return key

    def revoke(self, key_id: str) -> None:
        with self._changing() as known:
            _taken(known, key_id)

    def ensure_admin(self) -> Path:
        """One key, also of two processes that begin at once; a new one where the old was revoked."""
        with self._changing() as known:
            if self._of_the_file() not in known:
                replaced(self.admin_key_file, _add(known, ADMIN).encode())
        return self.admin_key_file

    def _of_the_file(self) -> str | None:
        try:
            return id_of(self.admin_key_file.read_text())
        except (FileNotFoundError, UnicodeDecodeError):
            return None

    @contextmanager
    def _changing(self) -> Iterator[dict[str, _Stored]]:
        """What is made of the keys here is written, if nothing was raised."""
        with alone(self._lock):
            before = _stored(self._file) if self._file.exists() else {}  # not what another thread read before
            changed = dict(before)
            yield changed
            if changed != before:
                replaced(self._file, msgspec.json.encode(list(changed.values())))

    def _reload(self) -> None:
        try:
            found = self._file.stat()
        except FileNotFoundError:
            self._known, self._read = {}, None
            return
        # Two keys made within one tick of the clock share a time, but no size.
        state = (found.st_mtime_ns, found.st_ino, found.st_size)
        if state != self._read:
            self._known, self._read = _stored(self._file), state


def _stored(file: Path) -> dict[str, _Stored]:
    try:
        stored = msgspec.json.decode(file.read_bytes(), type=list[_Stored])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise KeysDamaged(file, error) from error
    return {key.id: key for key in stored}


def _add(known: dict[str, _Stored], company: str | None) -> str:
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    known[key_id] = _Stored(key_id, company, hash_of(secret), time.time_ns() // 1_000)
    return f"rk_{key_id}.{secret}"


def _taken(known: dict[str, _Stored], key_id: str) -> _Stored:
    if key_id not in known:
        raise NoSuchKey(key_id)
    return known.pop(key_id)


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def bearer(authorization: str | None) -> str | None:
    """What an Authorization header bears; None where it has no bearer."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def id_of(key: str) -> str:
    return key.removeprefix("rk_").partition(".")[0]
