"""Which API a command asks, and by which key: what the settings say, or a profile that they name.

A profile's address and key come together and pass over what else is set: a key never goes to another API than its own.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from stat import S_IRWXG, S_IRWXO
from typing import NamedTuple

import msgspec

from rillfold.settings import ApiUrl, Settings, shown
from schemas.errors import Stop
from schemas.near import meant


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""

    api_url: ApiUrl
    api_key_file: str
    """Holds the key and nothing else. From the folder of the profiles, if it is no whole path."""


KEYS = Profile.__struct_fields__
TABLE = '[NAME] with api_url = "https://..." and api_key_file = "NAME.key"'


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
    found = named(settings.profile, file)
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


def named(name: str, file: Path) -> Profile:
    """Of the others nothing is asked but their names: what is wrong with one is no other's trouble."""
    known = _tables(file, name)
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise Stop(f"There is no profile {name!r} in {file}.{meant(name, known)} There are: {there}.")
    return _profile(f"{file}, profile {name!r}", known[name])


def _tables(file: Path, wanted: str) -> Mapping[str, object]:
    text = _read(file, f"a file of profiles, so there is no profile {wanted!r}")
    try:
        found: dict[str, object] = msgspec.toml.decode(text)
    except msgspec.DecodeError as error:
        raise Stop(f"{file} is no TOML: {error}. Mend it there: a profile is a table, {TABLE}.") from error
    return found


def _profile(place: str, given: object) -> Profile:
    """Each key by itself, so that the wrong one is named. What stands there may be a key that was to be hidden: of
    values only an address is repeated."""
    if not isinstance(given, dict):
        raise Stop(f"{place}: it is no table. Write {TABLE}.")
    for key in given:
        if key not in KEYS:
            told = f"{key!r} is no key of a profile.{meant(key, KEYS)} A profile has {' and '.join(KEYS)}"
            raise Stop(f"{place}: {told}: correct it, or take it out.")
    for key in KEYS:
        if not isinstance(given.get(key), str) or not given[key].strip():
            told = "is no text" if key in given else "is missing"
            raise Stop(f"{place}: {key!r} {told}. Write {TABLE}.")
    try:
        return msgspec.convert(given, Profile)
    except msgspec.ValidationError as error:
        given_url = shown(given["api_url"])
        told = f"'api_url' is {given_url!r}, and no URL such as https://rillfold.example or http://10.0.0.7:8700"
        raise Stop(f"{place}: {told}. Correct it.") from error


def _read(file: Path, what: str) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Stop(
            f"{file} is not {what} ({why}). Write it, or leave --profile out and unset RILLFOLD_PROFILE "
            "(docs/settings.md, Profiles)."
        ) from error


def _doubts(*files: Path) -> Iterator[str]:
    for file in files:
        if file.stat().st_mode & (S_IRWXG | S_IRWXO):
            yield f"{file} may be read or written by others of this machine: chmod 600 {file}"
