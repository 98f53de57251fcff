"""API keys: `rk_<id>.<secret>`. The file holds their hashes; a key is shown once, when it is made."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

import msgspec

ADMIN = None


class Principal(msgspec.Struct, frozen=True):
    """Who asks. A company, or the admin of all of them."""

    company: str | None

    @property
    def admin(self) -> bool:
        return self.company is ADMIN

    def may(self, company: str) -> bool:
        return self.admin or self.company == company


class _Stored(msgspec.Struct):
    id: str
    company: str | None
    sha256: str


class ApiKeys:
    """A file of hashes that only its owner reads; random keys of 256 bits need no slow hash."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "keys.json"
        self._read: tuple[int, int, int] | None = None
        self._known: dict[str, _Stored] = {}

    @classmethod
    def of(cls, data_dir: Path) -> ApiKeys:
        return cls(data_dir / "api")

    def make(self, company: str | None) -> str:
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        self._reload()
        known = {**self._known, key_id: _Stored(key_id, company, _hash(secret))}
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _replace(self._file, msgspec.json.encode(list(known.values())))
        return f"rk_{key_id}.{secret}"

    def who(self, key: str) -> Principal | None:
        key_id, _, secret = key.removeprefix("rk_").partition(".")
        self._reload()
        stored = self._known.get(key_id)
        # An unknown id costs the same work as a wrong secret.
        right = hmac.compare_digest(stored.sha256 if stored else _hash(""), _hash(secret))
        return Principal(stored.company) if stored and right else None

    @property
    def admin_key_file(self) -> Path:
        """Whoever owns the data folder is the admin."""
        return self._folder / "admin.key"

    def ensure_admin(self) -> Path:
        if not self.admin_key_file.exists():
            key = self.make(ADMIN)
            _replace(self.admin_key_file, key.encode())
        return self.admin_key_file

    def _reload(self) -> None:
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return
        # Two keys made within one tick of the clock share a time, but no size.
        state = (found.st_mtime_ns, found.st_ino, found.st_size)
        if state != self._read:
            stored = msgspec.json.decode(self._file.read_bytes(), type=list[_Stored])
            self._known, self._read = {key.id: key for key in stored}, state


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    draft.replace(path)
