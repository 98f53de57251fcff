"""Where tool credentials lie. Events carry a reference; the bridge alone opens it, for the origin it was given for."""

import os
import re
import secrets as randomness
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from streams.errors import SecretRefused

NONCE_BYTES = 12
VERSION = 1
REFERENCE = re.compile(r"sec_[0-9a-f]{32}")


class SecretStr:
    """A credential that no log line, trace, event or pickle can show. `reveal` is the one way to its text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "SecretStr(***)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("A SecretStr is not pickled or copied: pass its reference instead.")


class _Sealed(msgspec.Struct):
    version: int
    nonce: bytes
    ciphertext: bytes


class FileSecrets:
    """One sealed file a secret (AES-256-GCM), and one key file beside them that only its owner reads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, company: str, origin: str, value: SecretStr) -> str:
        """Keeps the value; returns the reference that events may carry."""
        ref = f"sec_{randomness.token_hex(16)}"
        nonce = randomness.token_bytes(NONCE_BYTES)
        ciphertext = AESGCM(self._key()).encrypt(nonce, value.reveal().encode(), _bound_to(company, origin, ref))
        _write_once(self._folder / ref, msgspec.json.encode(_Sealed(VERSION, nonce, ciphertext)))
        return ref

    def get(self, company: str, origin: str, ref: str) -> SecretStr:
        """Raises `SecretRefused` unless this company stored it for this origin."""
        if not REFERENCE.fullmatch(ref):
            raise SecretRefused(company, ref, "it is not a reference of this store")
        try:
            sealed = msgspec.json.decode((self._folder / ref).read_bytes(), type=_Sealed)
            text = (
                AESGCM(self._key()).decrypt(sealed.nonce, sealed.ciphertext, _bound_to(company, origin, ref)).decode()
            )
        except FileNotFoundError:
            raise SecretRefused(company, ref, "this store does not hold it") from None
        except OSError as error:
            raise SecretRefused(company, ref, f"its file cannot be read ({error.strerror})") from None
        except (InvalidTag, ValueError):
            detail = f"it was stored for another company or origin than {origin}, or the file was altered"
            raise SecretRefused(company, ref, detail) from None
        return SecretStr(text)

    def _key(self) -> bytes:
        path = self._folder / "key"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Where two processes begin at once, the first one's key stands.
            with suppress(FileExistsError):
                _write_once(path, AESGCM.generate_key(bit_length=256))
            return path.read_bytes()


def _bound_to(company: str, origin: str, ref: str) -> bytes:
    """A sealed file moved to another company, origin, name or version does not open."""
    return msgspec.json.encode([company, origin, ref, VERSION])


def _write_once(path: Path, content: bytes) -> None:
    """Whole or not at all, readable by its owner alone; raises where the file is there already."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{randomness.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        draft.unlink()
