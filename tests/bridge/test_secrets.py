"""A credential opens for its own company and origin, and shows nowhere else."""

from __future__ import annotations

import copy
import html
import json
import logging
import pickle
import stat
from pathlib import Path
from urllib.parse import quote_plus

import msgspec
import pytest

from streams.bridge.credentials import without
from streams.bridge.secrets import FileSecrets, SecretStr
from streams.errors import SecretRefused

ORIGIN = "https://crm.acme.example:443"


def test_a_secret_opens_for_its_company_and_origin_alone(tmp_path: Path) -> None:
    store = FileSecrets(tmp_path)
    ref = store.put("acme", ORIGIN, SecretStr("tok_1"))
    assert FileSecrets(tmp_path).get("acme", ORIGIN, ref).reveal() == "tok_1"
    for company, origin, wanted in [
        ("globex", ORIGIN, ref),
        ("acme", "https://evil.example:443", ref),
        ("acme", ORIGIN, "sec_0"),
        ("acme", ORIGIN, "../key"),
        ("acme", ORIGIN, "key"),
    ]:
        with pytest.raises(SecretRefused) as refused:
            store.get(company, origin, wanted)
        assert "tok_1" not in str(refused.value)


MADE = 'Till kid=1, signature="' + "aB/+" * 8 + '=="'
WRITTEN = {
    "json": lambda text: json.dumps({"got": text}),
    "json_with_slashes": lambda text: json.dumps({"got": text}).replace("/", "\\/"),
    "json_as_codes": lambda text: json.dumps(text).replace('\\"', "\\u0022").replace("+", "\\u002B"),
    "html": html.escape,
    "a_url": quote_plus,
    "the_part_behind_the_scheme": lambda text: text.split("signature=")[1],
    "that_part_in_json": lambda text: json.dumps(text.split("signature=")[1].strip('"')),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_a_reply_that_repeats_what_was_made_of_a_secret_is_published_without(written: str) -> None:
    told = WRITTEN[written](MADE)
    left = without(SecretStr("tok_1"), f"<{told}>", [MADE])
    assert "aB" not in left and "[credential]" in left, left


@pytest.mark.parametrize("secret", ['a"b\\c/d', "pässwort\U0001f511", "\\" * 40, "%25%25"])
def test_a_secret_in_json_or_as_it_is_is_taken_out(secret: str) -> None:
    for told in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        left = without(SecretStr(secret), f"<{told}>")
        assert left.replace("[credential]", "", 2) == "<>" and "[credential]" in left


def test_a_moved_or_altered_file_does_not_open(tmp_path: Path) -> None:
    store = FileSecrets(tmp_path)
    mine, other = (store.put("acme", ORIGIN, SecretStr(text)) for text in ("tok_1", "tok_2"))
    (tmp_path / mine).chmod(0o600)
    (tmp_path / mine).write_bytes((tmp_path / other).read_bytes())
    with pytest.raises(SecretRefused):
        store.get("acme", ORIGIN, mine)
    (tmp_path / mine).write_bytes(b"{}")
    with pytest.raises(SecretRefused):
        store.get("acme", ORIGIN, mine)


ODD = ["", "sec_", "sec_/../key", "sec_" + "0" * 5_000, "sec_" + "٣" * 32, "sec_" + "A" * 32, "sec_" + "0" * 32 + "\n",
       "sec_" + "0" * 32 + "/", "/etc/passwd", "sec_\0" + "0" * 31, "\ud800", "." + "0" * 35]  # fmt: skip


@pytest.mark.parametrize("ref", ODD)
def test_what_an_event_says_is_no_path(tmp_path: Path, ref: str) -> None:
    with pytest.raises(SecretRefused) as refused:
        FileSecrets(tmp_path).get("acme", ORIGIN, ref)
    assert len(str(refused.value)) < 400
    assert str(refused.value).isascii()


@pytest.mark.parametrize("content", [b"", b"\xff", b'{"version":1,"nonce":"AA==","ciphertext":"AA=="}', b"[" * 9_000])
def test_a_file_that_is_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    store = FileSecrets(tmp_path)
    ref = store.put("acme", ORIGIN, SecretStr("tok_1"))
    (tmp_path / ref).unlink()
    (tmp_path / ref).write_bytes(content)
    with pytest.raises(SecretRefused):
        store.get("acme", ORIGIN, ref)
    (tmp_path / ref).unlink()
    (tmp_path / ref).mkdir()
    with pytest.raises(SecretRefused, match="cannot be read"):
        store.get("acme", ORIGIN, ref)


def test_files_are_sealed_and_private(tmp_path: Path) -> None:
    store = FileSecrets(tmp_path / "secrets")
    store.put("acme", ORIGIN, SecretStr("tok_canary"))
    files = list((tmp_path / "secrets").iterdir())
    assert len(files) == 2
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o400
        assert b"tok_canary" not in file.read_bytes()


def test_a_secret_shows_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    secret = SecretStr("tok_canary")
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").warning("%s %r %s", secret, secret, [secret])
    shown = f"{secret} {secret!r} {[secret]} {caplog.text}"
    assert "tok_canary" not in shown
    for leak in (pickle.dumps, copy.deepcopy, json.dumps, msgspec.json.encode, vars):
        with pytest.raises(TypeError):
            leak(secret)
