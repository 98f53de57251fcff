"""What this installation says of the adapters that it makes: its signature, and what is installed here.

Its own key lies in its data folder; those of others that it takes are named by a setting.
"""

from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib.metadata import distributions
from pathlib import Path

from gpu_workers.adapters import signature
from gpu_workers.adapters.keys import AdapterKeys
from gpu_workers.adapters.papers import Build
from gpu_workers.errors import BadKey
from rillfold import __version__
from rillfold.settings import Settings
from rillfold.written import replaced, written_once

PRIVATE, PUBLIC = "adapters.key", "adapters.pub"


def adapter_keys(settings: Settings) -> AdapterKeys:
    """The own key is made when something is first signed with it, or is to be known among others."""
    place = _place(settings)
    listed: list[Path] = []
    if settings.adapter_keys is not None:
        listed = list(_listed(settings.adapter_keys))
        own_key(place)
    files = [*listed, *([place / PUBLIC] if (place / PUBLIC).is_file() else [])]
    known = [signature.public_key(file.read_bytes(), file) for file in files]
    return AdapterKeys(
        known={signature.key_id(key): key for key in known},
        demanded=settings.adapter_keys is not None,
        own=lambda: own_key(place),
    )


def make_own(settings: Settings) -> Path:
    """The public one, to be given to those who are to take what is signed here."""
    own_key(_place(settings))
    return _place(settings) / PUBLIC


def _place(settings: Settings) -> Path:
    return settings.data_dir.absolute() / "signing"


@cache
def own_key(place: Path) -> signature.PrivateKey:
    """Made by whoever needs it first, for its owner alone; the public one beside it is for everybody."""
    file = place / PRIVATE
    pem = file.read_text() if file.exists() else written_once(file, signature.new_key())
    key = signature.private_key(pem, file)
    public = signature.pem_of(key.public_key())
    if not (place / PUBLIC).is_file() or (place / PUBLIC).read_bytes() != public:
        replaced(place / PUBLIC, public)
    return key


def installed() -> Build:
    """Of this process: whose packages they are is what decides an adapter's bytes, beside the machine."""
    lock = Path(__file__).parents[1] / "requirements.lock"
    there = sorted({f"{each.metadata['Name']}=={each.version}" for each in distributions()})
    return Build(
        release=__version__,
        lock_sha256=sha256(lock.read_bytes()).hexdigest() if lock.is_file() else "",
        packages_sha256=sha256("\n".join(there).encode()).hexdigest(),
    )


def _listed(place: Path) -> Iterator[Path]:
    """A key's file, or a folder of such files."""
    files = sorted(place.glob("*.pub")) if place.is_dir() else [place]
    if not files or not all(file.is_file() for file in files):
        raise BadKey(
            f"RILLFOLD_ADAPTER_KEYS={place}: no public key is there. Give a PEM file, or a folder with files *.pub; "
            "`signing/adapters.pub` in the data folder of whoever trains is one."
        )
    yield from files
