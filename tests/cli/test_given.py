"""What a command is given: no number without bounds, no bytes that are no text, no file error as a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rillfold.cli import main
from rillfold.cli import rillfold as root
from rillfold.cli.terminal.given import (
    ADAPTER,
    AGENT,
    COMPANY,
    FOLDER_OR_ADAPTER,
    ROLE,
    TOOL,
    GivenName,
    Number,
    folder_of,
)
from rillfold.settings import from_env, in_force, misspelt
from schemas.errors import Stop
from streams.read_model.connection import reached


def commands(command: click.Command, name: str, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from commands(found, f"{name} {each}", context)


def test_every_number_has_its_bounds() -> None:
    loose, numbers = [], 0
    for name, command in commands(root, "rillfold", click.Context(root)):
        for parameter in command.params:
            number = isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType)
            numbers += number
            if number and not isinstance(parameter.type, click.IntRange | Number):
                loose.append(f"{name} --{parameter.name}")
    assert not loose and numbers > 10


NAMES = {
    "company": COMPANY,
    "company_id": COMPANY,
    "role": ROLE,
    "agents": AGENT,
    "agent": ROLE,
}


def test_every_name_is_held_to_its_word_before_anything_is_sent() -> None:
    loose, held = [], 0
    for name, command in commands(root, "rillfold", click.Context(root)):
        for parameter in command.params:
            counted = isinstance(parameter.type, click.IntRange)
            kinds = [] if counted or parameter.name not in NAMES else [NAMES[parameter.name]]
            if parameter.name == "adapter" or "COMPANY/ROLE" in (parameter.metavar or ""):
                kinds = [ADAPTER, FOLDER_OR_ADAPTER]
            if kinds:
                held += 1
                loose += [] if parameter.type in kinds else [f"{name} {parameter.name}"]
    assert not loose and held > 30


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (COMPANY, ["acme", "a.b-c_d", "1"], ["", "b b", "../x", "-a", "a/b", "x" * 129]),
        (ROLE, ["default", "_a.b-2"], ["", "a b", "é", ".a", "-a", "x" * 65]),
        (AGENT, ["a b", "Verkäufer"], ["", "a\nb", "x" * 129]),
        (TOOL, ["look up", "é"], ["", "/x", " a", "x" * 65]),
        (ADAPTER, ["acme/default", "acme/default@2", "acme/default/2"], ["", "acme", "acme/", "acme/a@b", "b b/x"]),
        (FOLDER_OR_ADAPTER, ["acme/default@1", ".", "./nowhere", "/nowhere"], ["nowhere", "acme/a b"]),
    ],
)  # fmt: skip
def test_what_can_name_nothing_is_refused_with_what_can(kind: GivenName, good: list[str], bad: list[str]) -> None:
    assert [kind.convert(word, None, None) for word in good] == good
    for word in bad:
        with pytest.raises(click.BadParameter, match=f"can name no {kind.name}: "):
            kind.convert(word, None, None)


def test_a_file_whose_name_can_be_no_roles_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "sales team_outputs.json").write_text("[]")
    done = CliRunner().invoke(root, ["produce", "company-data", str(tmp_path / "sales team_outputs.json")])
    assert done.exit_code == 2 and "'sales team' can name no role" in done.output and "--agent" in done.output


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "-1", "1e400", "nine"])
def test_what_is_no_number_is_refused_by_the_options_name(word: str) -> None:
    with pytest.raises(click.BadParameter):
        Number(0, 2).convert(word, None, None)
    assert Number(0, 2).convert("1.5", None, None) == 1.5


def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["rillfold", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_bytes_that_are_no_text_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    line = told(capsys, monkeypatch, "train", "--company", "caf\udce9")
    assert "'caf\ufffd' is not UTF-8" in line


@pytest.mark.parametrize("words", [("produce", "company-data"), ("tools", "register", "-")])
def test_standard_input_that_is_closed_is_named(words, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as Python has it then
    assert "Standard input is closed" in told(capsys, monkeypatch, *words)


def test_a_place_that_takes_nothing_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "below"
    line = told(capsys, monkeypatch, "dataset", "build", "--company", "acme", "--out", str(out))
    assert str(out) in line and "Not a directory" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("DATA_DIR", ""), ("DATA_DIR", " "), ("CACHE_DIR", "a\0b"), ("STALL_SECONDS", "inf")),
        *(("STALL_SECONDS", "nan"), ("API_PORT", "99999"), ("TOPIC_MAP", "[")),
        *(("SERVE_URL", "http://[::1"), ("MLFLOW_URL", "http://host:x"), ("API_URL", "http://host:")),
        *(("API_URL", "http://host:65536"), ("API_URL", "http://host\n")),
        *(("SERVE_URL", "localhost:8701"), ("API_URL", "http://"), ("HOSTS", "http://a.b"), ("HOSTS", "a,,b")),
        *(("ACCEPT_LOSS", '{"company-data/2:5": 1}'), ("ACCEPT_LOSS", '{"company-data/2@5": -1}')),
    ],
)
def test_a_setting_that_says_nothing_is_named(name: str, value: str) -> None:
    with pytest.raises(Stop, match=f"RILLFOLD_{name}=.*is not usable"):
        from_env({f"RILLFOLD_{name}": value})


@pytest.mark.parametrize(
    ("name", "such_as", "instead"),
    [("API_URL", 8700, "API_KEY"), ("SERVE_URL", 8701, "SERVE_TOKEN"), ("MLFLOW_URL", 5000, "MLFLOW_PASSWORD")],
)
def test_who_writes_a_password_into_a_url_is_told_where_it_belongs_and_it_is_not_shown(
    name: str, such_as: int, instead: str
) -> None:
    wanted = rf"RILLFOLD_{name}='http://\.\.\.@host.*:{such_as}.*RILLFOLD_{instead}"
    for url in ("http://me:geheim@host", "http://me:geheim@x@host/path"):
        with pytest.raises(Stop, match=wanted) as said:
            from_env({f"RILLFOLD_{name}": url})
        assert "heim" not in str(said.value)
    for url in ("me:geheim@host:5000", "http:/me:geheim@host", "http://host?token=geheim", "http://host:99999/?geheim"):
        with pytest.raises(Stop, match=f"RILLFOLD_{name}=") as said:
            from_env({f"RILLFOLD_{name}": url})
        assert "heim" not in str(said.value)


@pytest.mark.parametrize(
    "url", ["http://[::1]:8701", "https://a-b.example/its/@path", "http://10.0.0.7", "http://h:1/"]
)
def test_a_url_is_taken(url: str) -> None:
    assert from_env({"RILLFOLD_SERVE_URL": url}).serve_url == url


def test_a_setting_that_is_misspelt_is_named_with_the_one_that_is_meant() -> None:
    given = {"RILLFOLD_TOPIC_PREFX": "a-", "RILLFOLD_SERVICE_HOST": "10.0.0.1", "RILLFOLD_DATA_DIR": "x", "HOME": "/"}
    assert list(misspelt(given)) == [
        "RILLFOLD_TOPIC_PREFX is no setting, and is not read. Is RILLFOLD_TOPIC_PREFIX meant?"
    ]


@pytest.mark.parametrize("dsn", ["garbage", "postgresql://u:geheim@[", "host=h pass word=geheim"])
def test_a_dsn_that_is_none_is_named_and_its_password_is_not(dsn: str) -> None:
    with pytest.raises(Stop, match="RILLFOLD_POSTGRES_DSN") as said:
        reached(dsn)
    assert "geheim" not in str(said.value)


def test_letters_of_a_topic_that_is_not_there_are_not_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = told(capsys, monkeypatch, "dlq", "redrive", "--yes", "--topic", "nosuch")
    assert "No topic nosuch" in line and "company-data" in line


def test_a_folder_that_is_not_there_is_no_adapters_name(tmp_path: Path) -> None:
    assert folder_of(str(tmp_path)) == tmp_path and folder_of("acme/default@2") is None
    for name in ("./nope", "../nope", str(tmp_path / "nope")):
        with pytest.raises(Stop, match="is no folder"):
            folder_of(name)


def test_each_setting_is_told_with_who_says_it_and_no_secret_is() -> None:
    environ = {
        "RILLFOLD_API_KEY": "rk_canary",
        "RILLFOLD_POSTGRES_DSN": "postgres://a:canary@b/c",
        "XDG_CACHE_HOME": "/x",
    }
    found = {each.name: each for each in in_force(environ)}
    assert found["RILLFOLD_CACHE_DIR"][1:] == ("/x/rillfold", "XDG_CACHE_HOME")
    assert found["RILLFOLD_API_KEY"].source == "RILLFOLD_API_KEY" and found["RILLFOLD_PROVIDER"].source is None
    assert "canary" not in repr(found)
