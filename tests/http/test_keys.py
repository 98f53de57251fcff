"""Keys: shown once, kept hashed, each for one company."""

from __future__ import annotations

import stat
from pathlib import Path

from rillfold.http.keys import ApiKeys, Principal


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
