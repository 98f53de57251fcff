"""Keys: shown once, kept hashed, each for one company."""

from __future__ import annotations

import asyncio
import fcntl
import json
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from rillfold import written
from rillfold.cli.operate.key import key
from rillfold.http.keys import ApiKeys, KeysDamaged, NoSuchKey, Principal, id_of


def test_a_key_names_its_company_and_nothing_else(tmp_path: Path) -> None:
    keys = ApiKeys.of(tmp_path)
    acme, admin = keys.make("acme"), keys.make(None)
    again = ApiKeys.of(tmp_path)
    assert again.who(acme) == Principal("acme")
    assert again.who(admin) == Principal(None)
    for wrong in ("", "rk_", "rk_x.y", acme[:-1], acme + "x", acme.replace(".", ".."), f"rk_.{acme.partition('.')[2]}"):
        assert again.who(wrong) is None


def test_a_key_made_elsewhere_is_known_at_once(tmp_path: Path) -> None:
    here, there = ApiKeys.of(tmp_path), ApiKeys.of(tmp_path)
    first = here.make("acme")
    assert there.who(first) == Principal("acme")
    second = there.make("globex")
    assert here.who(second) == Principal("globex")
    assert here.who(first) == Principal("acme")


def test_keys_made_in_a_row_are_all_kept(tmp_path: Path) -> None:
    keys = ApiKeys.of(tmp_path)
    made = [keys.make(f"c{n}") for n in range(50)]
    assert [keys.who(key) for key in made] == [Principal(f"c{n}") for n in range(50)]


def test_the_file_holds_hashes_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    keys = ApiKeys.of(tmp_path)
    key = keys.make("acme")
    admin_file = keys.ensure_admin()
    assert keys.ensure_admin().read_text() == admin_file.read_text()
    assert keys.who(admin_file.read_text()) == Principal(None)
    file = tmp_path / "api" / "keys.json"
    assert key.partition(".")[2] not in file.read_text()
    assert {stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "api").iterdir()} == {0o600}


def test_keys_are_listed_rotated_and_revoked(tmp_path: Path) -> None:
    keys = ApiKeys.of(tmp_path)
    first, second, other = keys.make("acme"), keys.make("acme"), keys.make("globex")
    assert [each.id for each in keys.list("acme")] == [id_of(first), id_of(second)]
    assert {each.company for each in keys.list()} == {"acme", "globex"}
    assert all(abs(each.made_at - time.time() * 1e6) < 60e6 for each in keys.list())
    running = ApiKeys.of(tmp_path)
    assert running.who(first) == Principal("acme")
    third = keys.rotate(id_of(first))
    assert (running.who(first), running.who(third)) == (None, Principal("acme"))
    keys.revoke(id_of(second))
    assert [running.who(key) for key in (second, third, other)] == [None, Principal("acme"), Principal("globex")]
    for change in (keys.revoke, keys.rotate):
        with pytest.raises(NoSuchKey, match="rillfold key list"):
            change(id_of(second))


def test_the_admins_file_follows_its_key(tmp_path: Path) -> None:
    keys = ApiKeys.of(tmp_path)
    old = keys.ensure_admin().read_text()
    new = keys.rotate(id_of(old))
    assert keys.admin_key_file.read_text() == new
    keys.revoke(id_of(new))
    again = keys.ensure_admin().read_text()
    assert [keys.who(key) for key in (old, new, again)] == [None, None, Principal(None)]


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"\xff", b'[{"id": 1}]', b'[{"id": "a"}]'])
def test_a_damaged_file_is_named_and_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    keys = ApiKeys.of(tmp_path)
    key = keys.make("acme")
    (tmp_path / "api" / "keys.json").write_bytes(content)
    for asked in (lambda: keys.who(key), lambda: keys.make("b"), keys.list, keys.ensure_admin):
        with pytest.raises(KeysDamaged, match=r"keys\.json is damaged .*Restore it from a backup"):
            asked()
    assert (tmp_path / "api" / "keys.json").read_bytes() == content


def test_odd_keys_are_no_keys(tmp_path: Path) -> None:
    keys = ApiKeys.of(tmp_path)
    keys.make("acme")
    for odd in ("rk_é.ü", "\ud800", "rk_\0.\0", "x" * (1 << 20), "rk_rk_.", "."):
        assert keys.who(odd) is None


MAKING = """
import sys
from pathlib import Path
from rillfold.http.keys import ApiKeys
keys = ApiKeys.of(Path(sys.argv[1]))
print(keys.ensure_admin().read_text())
for n in range(20):
    print(keys.make(sys.argv[2]))
"""


def test_two_processes_do_not_race(tmp_path: Path) -> None:
    """Each key that was made is known, and the two find one admin key."""
    line = [sys.executable, "-c", MAKING, str(tmp_path)]
    running = [subprocess.Popen([*line, company], stdout=subprocess.PIPE, text=True) for company in ("a", "b", "c")]
    told = [process.communicate(timeout=120)[0].split() for process in running]
    keys = ApiKeys.of(tmp_path)
    assert len({lines[0] for lines in told}) == 1
    assert keys.who(told[0][0]) == Principal(None)
    for company, lines in zip("abc", told, strict=True):
        assert [keys.who(key) for key in lines[1:]] == [Principal(company)] * 20
    assert len(keys.list()) == 61


async def test_the_admin_lists_rotates_and_revokes_by_http(api) -> None:
    listed = (await api.ask("GET", "/companies/acme/keys", api.admin)).json()
    assert [each["id"] for each in listed] == [id_of(api.acme)]
    assert api.acme.partition(".")[2] not in str(listed)
    made = (await api.ask("POST", "/companies/acme/keys", api.admin)).json()
    rotated = (await api.ask("POST", f"/keys/{made['id']}/rotate", api.admin)).json()
    for asking, status in ((made["api_key"], 401), (rotated["api_key"], 404), (api.acme, 404)):
        assert (await api.ask("GET", "/projections/none", asking)).status_code == status
    assert (await api.ask("DELETE", f"/keys/{rotated['id']}", api.admin)).status_code == 204
    assert (await api.ask("GET", "/projections/none", rotated["api_key"])).status_code == 401
    for method, path in (("DELETE", f"/keys/{rotated['id']}"), ("POST", f"/keys/{rotated['id']}/rotate")):
        assert (await api.ask(method, path, api.admin)).status_code == 404
    own = f"/keys/{id_of(api.acme)}"
    for method, path in (("GET", "/companies/acme/keys"), ("POST", "/companies/acme/keys"), ("DELETE", own),
                         ("POST", f"{own}/rotate")):  # fmt: skip
        assert (await api.ask(method, path, api.acme)).status_code == 403


async def test_a_company_that_joins_twice_is_told_that_it_has_two_keys(api) -> None:
    asked = [api.ask("POST", "/companies", api.admin, json={"company_id": "new"}) for _ in range(2)]
    answers = [answer.json() for answer in await asyncio.gather(*asked)]
    assert sorted(answer["keys"] for answer in answers) == [1, 2]
    for answer in answers:
        assert (await api.ask("GET", "/projections/none", answer["api_key"])).status_code == 404


async def test_damaged_keys_are_503_for_everybody_and_health_answers(api, tmp_path: Path) -> None:
    (tmp_path / "api" / "keys.json").write_bytes(b"[")
    answer = await api.ask("GET", "/projections", api.acme)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert (await api.ask("GET", "/health")).status_code == 200


def test_the_command_works_on_the_data_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RILLFOLD_DATA_DIR", str(tmp_path))
    keys = ApiKeys.of(tmp_path)

    def said(*words: str) -> str:
        result = CliRunner().invoke(key, list(words))
        assert result.exit_code == 0, result.output
        return result.output.strip()

    made = said("new", "acme")
    assert keys.who(made) == Principal("acme")
    assert keys.who(said("new", "--admin")) == Principal(None)
    rotated = json.loads(said("rotate", id_of(made), "--json"))
    assert (keys.who(made), keys.who(rotated["api_key"])) == (None, Principal("acme"))
    assert [each["id"] for each in json.loads(said("list", "--company", "acme", "--json"))] == [rotated["id"]]
    assert "acme" in said("list") and "(admin)" in said("list") and rotated["api_key"] not in said("list")
    said("revoke", rotated["id"])
    assert keys.who(rotated["api_key"]) is None
    assert isinstance(CliRunner().invoke(key, ["revoke", "nope"]).exception, NoSuchKey)
    assert CliRunner().invoke(key, ["new"]).exit_code == 2


CHANGES = [("POST", "/companies/acme/keys"), ("POST", "/keys/{key}/rotate"), ("DELETE", "/keys/{key}")]


async def test_who_waits_for_the_lock_holds_up_nobody(api, tmp_path: Path) -> None:
    with (tmp_path / "api" / "keys.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        paths = [(method, path.format(key=id_of(api.globex))) for method, path in CHANGES[:2]]
        waiting = [asyncio.create_task(api.ask(method, path, api.admin)) for method, path in paths]
        for _ in range(3):
            assert (await api.ask("GET", "/companies/acme/keys", api.admin)).status_code == 200
        assert not any(task.done() for task in waiting)
    assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [201, 201]


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_a_process_that_stands_with_the_lock_is_named(
    api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    monkeypatch.setattr(written, "LOCK_SECONDS", 0.1)
    with (tmp_path / "api" / "keys.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        answer = await api.ask(method, path.format(key=id_of(api.acme)), api.admin)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "keys.lock is held by another process" in answer.json()["error"]["message"]
    assert api.services.keys.who(api.acme) == Principal("acme")
