"""Signatures as others make and read them, the keys of an installation, and what goes with an adapter."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from huggingface_hub import ModelCard

from gpu_workers.adapters.brought import read_brought
from gpu_workers.adapters.check import CONFIG, TENSORS
from gpu_workers.adapters.keys import CARD, PROVENANCE, AdapterKeys
from gpu_workers.adapters.papers import Build, papers_of
from gpu_workers.adapters.signature import (
    SIGNATURE,
    key_id,
    new_key,
    pem_of,
    private_key,
    public_key,
    sign,
    signed_files,
)
from gpu_workers.adapters.store import MANIFEST, ArtifactManifest, FolderStore
from gpu_workers.errors import BadKey, NotSigned
from projections.lora_adapters import Adapter
from rillfold.adapter_keys import adapter_keys, installed, make_own
from rillfold.settings import Settings
from rillfold.wiring import artifact_store
from schemas.adapters import Evaluation
from schemas.training import OffsetRange
from tests.support.laid import FACTS, lay

THEIRS = Path(__file__).parent / "signed"
"""By `model-signing sign key` of OpenSSF, release 1.1.1, with a key that nobody has any more."""
KEY = private_key(new_key(), "a test")


def hashes(folder: Path) -> Mapping[str, str]:
    names = [path.name for path in folder.iterdir() if path.name not in (SIGNATURE, "signer.pub")]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def payload(bundle: bytes) -> Any:
    return json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))


def test_what_the_tool_of_openssf_signed_is_taken() -> None:
    signer = public_key((THEIRS / "signer.pub").read_bytes(), "theirs")
    found = signed_files((THEIRS / SIGNATURE).read_bytes(), {key_id(signer): signer})
    assert (found.signer, found.files) == (key_id(signer), hashes(THEIRS))


def test_what_is_signed_here_says_of_the_same_files_what_that_tool_says() -> None:
    """But for the signature and its key, which are another's: so it takes ours."""
    theirs, ours = (THEIRS / SIGNATURE).read_bytes(), sign(hashes(THEIRS), "g", KEY)
    stated = [payload(each) for each in (theirs, ours)]
    for each in stated:  # theirs are a set, in any order
        each["predicate"]["serialization"]["ignore_paths"].sort()
    assert stated[0] == stated[1]
    bundles = [json.loads(each) for each in (theirs, ours)]
    for bundle in bundles:
        bundle["dsseEnvelope"] = {**bundle["dsseEnvelope"], "payload": "", "signatures": []}
        bundle["verificationMaterial"]["publicKey"]["hint"] = ""
    assert bundles[0] == bundles[1]
    assert sign(hashes(THEIRS), "g", KEY) == ours, "the same bytes again"


DAMAGE: dict[str, Any] = {
    "no bundle": lambda bundle: b"{}",
    "no JSON": lambda bundle: bundle[:-1],
    "deep": lambda bundle: b"[" * 100_000,
    "not in base64": lambda bundle: bundle.replace(b'"payload":"', b'"payload":"!'),
    "two signatures": lambda bundle: bundle.replace(b'"signatures":[', b'"signatures":[{"sig":"","keyid":""},'),
    "of another kind": lambda bundle: bundle.replace(b"vnd.in-toto+json", b"vnd.other+json"),
    "another payload": lambda bundle: bundle.replace(b'"payload":"ey', b'"payload":"eyA'),
    "another signature": lambda bundle: bundle.replace(b'"sig":"M', b'"sig":"N'),
    "another key's id": lambda bundle: bundle.replace(key_id(KEY.public_key()).encode(), b"0" * 64),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_signature_is_none(damage: str) -> None:
    known, bundle = {key_id(KEY.public_key()): KEY.public_key()}, sign({"a": "0" * 64}, "x", KEY)
    assert signed_files(bundle, known).files == {"a": "0" * 64}
    damaged = DAMAGE[damage](bundle)
    assert damaged != bundle
    with pytest.raises(NotSigned):
        signed_files(damaged, known)


@pytest.mark.parametrize("change", ["_type", "predicateType", "subject", "a hash that is none", "another algorithm"])
def test_what_is_signed_must_be_a_list_of_files_that_agrees_with_itself(
    monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Whoever has the key may sign anything; it is taken for what it is."""
    said = payload(sign({"a": "0" * 64}, "x", KEY))
    resource = said["predicate"]["resources"][0]
    match change:
        case "subject":
            said["subject"][0]["digest"]["sha256"] = "1" * 64
        case "a hash that is none":
            resource["digest"] = "zz"
        case "another algorithm":
            resource["algorithm"] = "blake3"
        case name:
            said[name] = "other"
    monkeypatch.setattr("gpu_workers.adapters.signature._stated", lambda _files, _name: said)
    bundle = sign({}, "x", KEY)
    with pytest.raises(NotSigned):
        signed_files(bundle, {key_id(KEY.public_key()): KEY.public_key()})


MAKER = """
import sys
from pathlib import Path
from rillfold.adapter_keys import make_own
from rillfold.settings import Settings
print(make_own(Settings(data_dir=Path(sys.argv[1]))).read_text())
"""


def test_several_processes_that_start_at_once_have_one_key_which_is_its_owners_alone(tmp_path: Path) -> None:
    line = [sys.executable, "-c", MAKER, str(tmp_path)]
    makers = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {maker.communicate()[0] for maker in makers}
    assert [maker.returncode for maker in makers] == [0, 0, 0] and len(said) == 1
    assert make_own(Settings(data_dir=tmp_path)).read_text().strip() == said.pop().strip()
    assert (tmp_path / "signing" / "adapters.key").stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in (tmp_path / "signing").iterdir()) == ["adapters.key", "adapters.pub"]


def test_a_key_that_is_none_is_named_before_anything_is_made_with_it(tmp_path: Path) -> None:
    (tmp_path / "signing").mkdir()
    (tmp_path / "signing" / "adapters.key").write_text("no key")
    with pytest.raises(BadKey, match=r"signing/adapters\.key is no private key"):
        make_own(Settings(data_dir=tmp_path))
    (tmp_path / "empty").mkdir()
    for listed in (tmp_path / "nothing", tmp_path / "empty"):
        with pytest.raises(BadKey, match=rf"RILLFOLD_ADAPTER_KEYS={listed}: no public key is there"):
            adapter_keys(Settings(data_dir=tmp_path / "other", adapter_keys=listed))
    (tmp_path / "bad.pub").write_text("no key")
    with pytest.raises(BadKey, match=r"bad\.pub is no public key"):
        adapter_keys(Settings(data_dir=tmp_path / "other", adapter_keys=tmp_path / "bad.pub"))


def test_a_list_of_keys_is_theirs_and_our_own(tmp_path: Path) -> None:
    """Trained in one data folder, served in another."""
    training = Settings(data_dir=tmp_path / "training", adapter_store=str(tmp_path / "store"))
    (listed := tmp_path / "listed").mkdir()
    shutil.copy(make_own(training), listed / "trainer.pub")
    store = artifact_store(training)
    sha256 = store.put(lay(tmp_path / "made"), FACTS)
    store.put_papers(sha256, "acme/support@1", {CARD: b"# a"})

    def serving(**more: Any) -> Settings:
        return Settings(data_dir=tmp_path / "serving", adapter_store=training.adapter_store, **more)

    assert artifact_store(serving(adapter_keys=listed)).place(sha256).is_dir()
    assert artifact_store(serving(adapter_keys=listed / "trainer.pub")).place(sha256).is_dir()
    (listed / "trainer.pub").write_bytes(pem_of(KEY.public_key()))
    refusing = serving(adapter_keys=listed)
    with pytest.raises(NotSigned, match="which is none of 2"):
        artifact_store(refusing).place(sha256)
    artifact_store(refusing).put_papers(sha256, "acme/support@1", {CARD: b"# a"})
    assert artifact_store(refusing).place(sha256).is_dir(), "its own key counts, too"


def test_a_folder_that_is_brought_must_be_signed_where_signatures_are_demanded(tmp_path: Path) -> None:
    keys = AdapterKeys({key_id(KEY.public_key()): KEY.public_key()}, demanded=True)
    folder = lay(tmp_path / "made")
    assert read_brought(folder, AdapterKeys()).rank == 2
    with pytest.raises(NotSigned, match=r"made: has no model\.sig"):
        read_brought(folder, keys)
    manifest = ArtifactManifest(facts=FACTS, files={})
    for name, body in ((CARD, b"# made\n"), (MANIFEST, msgspec.json.encode(manifest))):
        (folder / SIGNATURE).write_bytes(sign(hashes(folder), "made", KEY))
        (folder / name).write_bytes(body)
        with pytest.raises(NotSigned, match=f"{name} is not what was signed"):
            read_brought(folder, keys)
    (folder / SIGNATURE).write_bytes(sign(hashes(folder), "made", KEY))
    assert read_brought(folder, keys) == (2, 4.0, FACTS, b"# made\n")
    for name in (CONFIG, TENSORS, CARD, MANIFEST):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole + b" ")
        with pytest.raises(NotSigned, match=f"{name} is not what was signed"):
            read_brought(folder, keys)
        (folder / name).write_bytes(whole)


ROW = Adapter(
    company="acme",
    adapter="acme/support",
    version=2,
    run="run-7",
    sha256="a" * 64,
    method="lora",
    rank=8,
    alpha=16.0,
    base_model="smollm2-135m-instruct",
    base_sha256="b" * 64,
    manifest="c" * 64,
    ranges=(OffsetRange(topic="company-data", partition=3, start=5, stop=90),),
    seed=7,
    identity='{"machine":{"threads":2},"method":"lora","settings":{"steps":30},"tools_in_prompt":false}',
    evaluation=Evaluation(examples=9, before=0.25, after=0.75),
    event="e",
    promoted=True,
    verdict="better",
    ready_at=1,
)
FILES = {CONFIG: "1" * 64, TENSORS: "2" * 64, "manifest.json": "a" * 64}
BUILD = Build(release="0.1.0", lock_sha256="d" * 64, packages_sha256="e" * 64, template_sha256="f" * 64)


def test_the_card_is_one_that_a_hub_reads() -> None:
    card = ModelCard(papers_of(ROW, FILES, BUILD)[CARD].decode())
    assert (card.data.base_model, card.data.library_name) == ("smollm2-135m-instruct", "peft")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("exact_match", 0.75, f"sha256:{'c' * 64}")
    assert "# acme/support@2" in card.text and "| company-data | 3 | 5 | 90 |" in card.text


def test_words_of_the_log_are_no_markup_in_the_card() -> None:
    evil = 'x"\n---\n<script>alert(1)</script> [a](http://b) `c`'
    row = msgspec.structs.replace(ROW, base_model=evil, verdict_detail=evil)
    card = ModelCard(papers_of(row, FILES)[CARD].decode())
    assert card.data.base_model == evil
    assert not set("<[`") & set(card.text.replace(f"`{'x'}", "").split("## Data")[0].split("gate")[1])


def test_the_statement_says_what_it_was_made_of() -> None:
    said = json.loads(papers_of(ROW, FILES, BUILD)[PROVENANCE])
    assert (said["_type"], said["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    assert {each["name"]: each["digest"]["sha256"] for each in said["subject"]} == FILES
    how = said["predicate"]["buildDefinition"]
    assert how["externalParameters"] == {
        "adapter": "acme/support",
        "version": 2,
        "method": "lora",
        "seed": 7,
        "ranges": [{"topic": "company-data", "partition": 3, "start": 5, "stop": 90}],
        "settings": {"steps": 30},
    }
    assert how["internalParameters"]["machine"] == {"threads": 2}
    made_from = {each["name"]: each.get("digest", {}).get("sha256") for each in how["resolvedDependencies"]}
    assert made_from == {
        "base model": "b" * 64,
        "dataset manifest": "c" * 64,
        "code": None,
        "requirements.lock": "d" * 64,
        "installed packages": "e" * 64,
        "chat template": "f" * 64,
    }
    assert said["predicate"]["runDetails"]["metadata"] == {"invocationId": "run-7"}


def test_the_same_row_gives_the_same_papers_whenever_it_was_ready() -> None:
    later = msgspec.structs.replace(ROW, ready_at=99, judged_at=98, event="another")
    assert papers_of(ROW, FILES, BUILD) == papers_of(later, FILES, BUILD)
    odd = msgspec.structs.replace(ROW, identity="[]", evaluation=None, ranges=())
    assert set(papers_of(odd, FILES)) == {CARD, PROVENANCE}


def test_what_is_installed_is_told_by_its_hashes() -> None:
    assert installed() == installed() and installed().lock_sha256 and installed().packages_sha256


def test_papers_are_no_part_of_an_adapters_hash(tmp_path: Path) -> None:
    plain, signing = FolderStore(tmp_path / "a"), artifact_store(Settings(data_dir=tmp_path / "b"))
    sha256 = plain.put(lay(tmp_path / "made"), FACTS)
    assert signing.put(tmp_path / "made", FACTS) == sha256
    signing.put_papers(sha256, "acme/support@1", papers_of(ROW, FILES))
    assert signing.put(tmp_path / "made", FACTS) == sha256
