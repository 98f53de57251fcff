"""Which API a command asks, and by which key: what the settings say, or a profile that they name.

A profile's address and key come together and pass over what else is set: a key never goes to another API than its own.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from stat import S_IRWXG, S_IRWXO
from typing import NamedTuple

import msgspec

from rillfold.settings import Settings, Url
from schemas.errors import Stop


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""

    api_url: Url
    api_key_file: str
    """Holds the key and nothing else. From the folder of the profiles, if it is no whole path."""


class WayToApi(NamedTuple):
    url: str
    key: str | None
    """None: nobody says one, and the data folder may have it."""
    doubts: tuple[str, ...] = ()
    """What should not be so."""


def way_to_api(settings: Settings) -> WayToApi:
    if not settings.profile:
        return WayToApi(settings.address("api"), settings.api_key)
    file = settings.profiles_file.expanduser()
    found = named(settings.profile, profiles(file, settings.profile), file)
    key_file = file.parent / Path(found.api_key_file).expanduser()
    if not (key := _read(key_file, f"the key of profile {settings.profile!r}")):
        raise Stop(f"{key_file} is empty: write the key of profile {settings.profile!r} there.")
    return WayToApi(found.api_url.rstrip("/"), key, tuple(_doubts(file, key_file)))


def of_the_settings(settings: Settings) -> Settings:
    """For what works on the log and its tables: no profile names those, and another's would be meant."""
    if settings.profile:
        raise Stop(
            f"Profile {settings.profile!r} names an API, and this command asks none: it works on the log and tables of "
            f"the settings (`rillfold settings`). Leave --profile out, or unset RILLFOLD_PROFILE."
        )
    return settings


def profiles(file: Path, wanted: str) -> Mapping[str, Profile]:
    text = _read(file, f"a file of profiles, so there is no profile {wanted!r}")
    try:
        return msgspec.toml.decode(text, type=dict[str, Profile])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Stop(
            f"{file} is no file of profiles: {error}. Write a table for each: [NAME] with api_url and api_key_file."
        ) from error


def named(name: str, known: Mapping[str, Profile], file: Path) -> Profile:
    if name not in known:
        raise Stop(f"There is no profile {name!r} in {file}. There are: {', '.join(sorted(known)) or 'none'}.")
    return known[name]


def _read(file: Path, what: str) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Stop(
            f"{file} is not {what} ({why}). Write it, or unset RILLFOLD_PROFILE (docs/settings.md, Profiles)."
        ) from error


def _doubts(*files: Path) -> Iterator[str]:
    for file in files:
        if file.stat().st_mode & (S_IRWXG | S_IRWXO):
            yield f"{file} may be read or written by others of this machine: chmod 600 {file}"
