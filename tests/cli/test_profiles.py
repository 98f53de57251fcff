"""A profile names an API and the key for it, and neither goes anywhere without the other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rillfold.automation import api_client
from rillfold.cli import rillfold
from rillfold.profiles import way_to_api
from rillfold.settings import Settings, from_env
from schemas.errors import Stop

FILE = """
[shop]
api_url = "https://rillfold.shop.example/"
api_key_file = "shop.key"

[here]
api_url = "http://127.0.0.1:9"
api_key_file = "{folder}/shop.key"
"""


GOOD = "[shop]\napi_url = 'https://x'\napi_key_file = 'a'\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "rillfold"
    folder.mkdir()
    (folder / "shop.key").write_text("rk_shop.secret\n")
    file = folder / "profiles.toml"
    file.write_text(FILE.format(folder=folder))
    for each in folder.iterdir():
        each.chmod(0o600)
    return file


def said(file: Path, *words: str, **environment: str) -> Result:
    given = {"RILLFOLD_PROFILES_FILE": str(file), "RILLFOLD_DATA_DIR": str(file.parent), **environment}
    return CliRunner().invoke(rillfold, list(words), env=given)


def test_address_and_key_come_together_whatever_else_is_set(file: Path) -> None:
    """A key for one API must not be sent to another."""
    settings = Settings(profile="shop", profiles_file=file, api_url="http://10.0.0.1", api_key="rk_other.key")
    assert way_to_api(settings) == ("https://rillfold.shop.example", "rk_shop.secret", ())
    assert way_to_api(Settings(api_key="rk_other.key")) == ("http://127.0.0.1:8700", "rk_other.key", ())


@pytest.mark.parametrize(
    "words",
    [("train", "--company", "acme"), ("adapters", "list", "acme"), ("produce", "company-data", os.devnull),
     ("query", "companies"), ("dlq", "list"), ("lineage", "acme/default@1"), ("topics", "list")],
    ids=" ".join,
)  # fmt: skip
def test_what_works_on_the_log_takes_no_profile(file: Path, words: tuple[str, ...]) -> None:
    """It would act on this log while another's is meant."""
    told = said(file, "--profile", "shop", *words)
    assert isinstance(told.exception, Stop) and "Profile 'shop' names an API" in str(told.exception), told.output


def test_the_option_is_for_one_command_and_the_variable_for_all(file: Path) -> None:
    for told in (
        said(file, "--profile", "here", "tools", "list"),
        said(file, "tools", "list", RILLFOLD_PROFILE="here"),
        said(file, "--profile", "here", "tools", "list", RILLFOLD_PROFILE="shop"),
    ):
        assert "http://127.0.0.1:9 does not answer" in str(told.exception)
    assert from_env().profile is None
    assert from_env({"XDG_CONFIG_HOME": "/c"}).profiles_file == Path("/c/rillfold/profiles.toml")


def test_a_wrong_name_lists_those_that_there_are(file: Path) -> None:
    told = str(said(file, "--profile", "shap", "job", "list").exception)
    assert "no profile 'shap'" in told and "There are: here, shop." in told


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[shop", r"profiles.toml is no TOML: .*Mend it there"),
        ("shop = 3", r"profiles.toml, profile 'shop': it is no table. Write \[NAME\] with api_url"),
        ("[shop]\napi_url = 'https://x'", "profiles.toml, profile 'shop': 'api_key_file' is missing. Write"),
        ("[shop]\napi_url = 'https://x'\napi_key_file = 3", "profile 'shop': 'api_key_file' is no text. Write"),
        ("[shop]\napi_url = 'ftp://x'\napi_key_file = 'a'", "profile 'shop': 'api_url' is 'ftp://x', and no URL such"),
        (
            "[shop]\napi_url = 'https://a:rk_canary@x'\napi_key_file = 'a'",
            "'api_url' is 'https://...@x', and no URL such",
        ),
        (GOOD + "api_key = 'rk_canary'", "profile 'shop': 'api_key' is no key .*Is 'api_key_file' meant.*take it out"),
        (GOOD + "api_urll = 'x'", "profile 'shop': 'api_urll' is no key of a profile. Is 'api_url' meant?"),
        ("[shop]\napi_url = 'https://x'\napi_key_file = 'none'", "is not the key of profile 'shop'"),
        ("[shop]\napi_url = 'https://x'\napi_key_file = 'empty'", "is empty"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_remedy(file: Path, text: str, why: str) -> None:
    file.write_text(text)
    (file.parent / "empty").touch()
    with pytest.raises(Stop, match=why) as said:
        api_client(Settings(profile="shop", profiles_file=file, data_dir=file.parent))
    assert "canary" not in str(said.value)


def test_what_is_wrong_with_one_profile_is_no_others_trouble(file: Path) -> None:
    file.write_text(f"{GOOD}[broken]\napi_urll = 3\n")
    (file.parent / "a").write_text("rk_a.b")
    assert way_to_api(Settings(profile="shop", profiles_file=file)).key == "rk_a.b"
    told = str(said(file, "--profile", "brokn", "job", "list").exception)
    assert "Is 'broken' meant?" in told and "There are: broken, shop." in told


def test_no_file_at_all(tmp_path: Path) -> None:
    told = str(said(tmp_path / "none.toml", "--profile", "shop", "job", "list").exception)
    assert "none.toml" in told and "no profile 'shop'" in told and "unset RILLFOLD_PROFILE" in told


@pytest.mark.parametrize("name", ["profiles.toml", "shop.key"])
def test_a_file_that_others_may_read_is_said_and_used(file: Path, name: str) -> None:
    (file.parent / name).chmod(0o640)
    told = said(file, "--profile", "here", "tools", "list")
    assert f"chmod 600 {file.parent / name}" in told.stderr
    assert "does not answer" in str(told.exception)
    assert "rk_shop" not in told.output


def test_an_empty_key_is_never_made_up_for_by_the_admins_of_this_machine(file: Path) -> None:
    (file.parent / "shop.key").write_text("\n")
    with pytest.raises(Stop, match="is empty"):
        way_to_api(Settings(profile="shop", profiles_file=file))
