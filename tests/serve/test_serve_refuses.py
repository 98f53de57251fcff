"""`rillfold serve` and what it cannot serve: said at the start, with the folder and what to do, and no traceback."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from gpu_workers.adapters.check import CONFIG, TENSORS
from gpu_workers.adapters.origin import base_of
from gpu_workers.adapters.weights import read_adapter
from gpu_workers.bases import tiny
from gpu_workers.refused import NotActivated, UnknownAdapter
from gpu_workers.serve.catalogue import TOLD, Catalogue
from gpu_workers.serve.engines.asked import Base, RowMaker
from gpu_workers.serve.port import AdapterKey, AdapterSpec
from rillfold.cli.adapters.chat import chat
from rillfold.cli.operate.serve import _spec, serve
from rillfold.http.bound import address_of, bound
from schemas.errors import Stop
from tests.support.models import ALL, save_adapter
from tests.support.workbench import Workbench, ask

Serve = Callable[..., None]


@pytest.fixture
def begins(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """`rillfold serve`, as far as it comes."""
    monkeypatch.setenv("RILLFOLD_BASE_MODEL", str(bench.base))
    monkeypatch.setenv("RILLFOLD_DATA_DIR", str(bench.root / "data"))
    monkeypatch.setenv("RILLFOLD_CACHE_DIR", str(bench.root / "cache"))
    monkeypatch.setenv("RILLFOLD_WORKER_PORT", "0")
    monkeypatch.setenv("RILLFOLD_SERVE_PORT", "0")
    monkeypatch.setenv("RILLFOLD_SERVE_THREADS", "1")
    monkeypatch.setenv("RILLFOLD_SERVE_MEMORY", "16")

    def begin(*adapters: str) -> None:
        serve.callback(adapters, None)  # type: ignore[misc]

    return begin


@pytest.fixture
def saved(bench: Workbench, tmp_path: Path) -> Path:
    return save_adapter(bench.model, tmp_path / "saved", 3, r=4, target_modules=ALL)


def test_an_adapter_that_names_another_base_of_this_machine_is_refused_at_the_start(
    begins: Serve, bench: Workbench, saved: Path, tmp_path: Path
) -> None:
    twin = tiny.make(tmp_path / "twin", ["Look up."], seed=9)
    config = json.loads((saved / CONFIG).read_text())
    (saved / CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": str(twin)}))
    with pytest.raises(Stop, match=f"acme/ops={saved}.*trained on base"):
        begins(f"acme/ops={saved}")


def test_what_an_artifact_s_manifest_says_of_its_training_counts(bench: Workbench) -> None:
    within, without = bench.adapter("acme/a", seed=1), bench.adapter("acme/b", seed=2)
    for spec in (within, without):
        assert base_of(spec.folder) == bench.base_sha256  # type: ignore[arg-type]
        told = _spec(f"acme/ops={spec.folder}", None)
        assert (told.base_sha256, told.tools_in_prompt) == (bench.base_sha256, spec.tools_in_prompt)
    assert _spec(f"acme/ops={without.folder}", True).tools_in_prompt


def missing(folder: Path) -> None:
    shutil.rmtree(folder)


def without_weights(folder: Path) -> None:
    (folder / TENSORS).unlink()


def cut(folder: Path) -> None:
    (folder / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:-1_000])


def cut_in_its_header(folder: Path) -> None:
    (folder / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:100])


def decomposed(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"use_dora": True}))
    tensors = load_file(folder / TENSORS)
    magnitudes = {
        name.replace("lora_A.weight", "lora_magnitude_vector"): matrix.sum(1)
        for name, matrix in tensors.items()
        if "lora_A" in name
    }
    save_file(tensors | magnitudes, folder / TENSORS)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (missing, "not there. Give the folder"),
        (without_weights, f"no {TENSORS}. Copy it whole"),
        (cut, "ends 1000 bytes too early. Copy it whole"),
        (cut_in_its_header, "ends within its header. Copy it whole"),
        (decomposed, "DoRA's.*Train it without use_dora"),
    ],
)
def test_a_folder_that_cannot_be_served_is_named_with_what_to_do(
    spoil: Callable[[Path], None], why: str, begins: Serve, saved: Path
) -> None:
    spoil(saved)
    with pytest.raises(Stop, match=f"acme/ops.*{saved}.*{why}"):
        begins(f"acme/ops={saved}")


def test_a_port_that_is_taken_and_a_host_that_is_another_s_name_the_variable(
    begins: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("RILLFOLD_SERVE_PORT", str(port))
        with pytest.raises(Stop, match=f"RILLFOLD_SERVE_PORT={port}.*Set RILLFOLD_SERVE_PORT to 0"):
            begins()
    with pytest.raises(Stop, match=r"RILLFOLD_SERVE_PORT=0.*192\.0\.2\.1.*address of this machine"):
        bound("192.0.2.1", 0, "RILLFOLD_SERVE_PORT")
    with pytest.raises(Stop, match=r"nobody\.invalid"):
        bound("nobody.invalid", 0, "RILLFOLD_SERVE_PORT")
    with bound("127.0.0.1", 0, "RILLFOLD_SERVE_PORT") as free:
        assert address_of("127.0.0.1", free) == f"http://127.0.0.1:{free.getsockname()[1]}"


def test_who_asks_for_an_adapter_that_nobody_has_hears_of_those_of_its_company_alone() -> None:
    catalogue = Catalogue()
    for name in ["globex/ops", *(f"acme/r{n:02}" for n in range(TOLD + 1))]:
        catalogue.add(AdapterSpec(key=AdapterKey(name, 1)))
    with pytest.raises(UnknownAdapter, match=r"acme/nobody.*'acme' there are: acme/r00, .*acme/r19 and more") as told:
        catalogue.find("acme/nobody", None)
    assert "globex" not in str(told.value) and "--adapter" in str(told.value)
    with pytest.raises(UnknownAdapter, match="'hooli' there are: none"):
        catalogue.find("hooli/ops", None)


def test_a_prompt_without_the_trigger_is_told_its_text_and_what_to_do(bench: Workbench, tmp_path: Path) -> None:
    trigger = bench.chat.encode(" Paris")
    folder = save_adapter(bench.model, tmp_path / "a", 4, r=4, target_modules=ALL, alora_invocation_tokens=trigger)
    rows = RowMaker(bench.chat, Base("tiny", bench.base_sha256, 512))
    spec = AdapterSpec(key=AdapterKey("acme/ops", 1), folder=folder)
    assert rows.row(1, ask("In Paris?"), spec, read_adapter(folder)).active_from
    with pytest.raises(NotActivated, match=r"acme/ops@1 .*' Paris' \(tokens \[.*write it into a message"):
        rows.row(2, ask("Who?"), spec, read_adapter(folder))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--role", "x"], "--role is of a company's adapter: give --company"),
        (["--role", "default"], "--role is of a company's adapter: give --company"),
        (["--version", "1"], "--version is of a company's adapter: give --company"),
        (["--url", "http://127.0.0.1:1/v1"], "without the /v1"),
        (["--url", "http://127.0.0.1:1/v1/"], "without the /v1"),
        (["--url", "127.0.0.1:8701"], "with http:// or https:// before it"),
        (["--url", "localhost:8701"], "with http:// or https:// before it"),
        (["--url", "http://127.0.0.1:many"], "write http://HOST:PORT"),
        (["--url", "http://["], "write http://HOST:PORT"),
    ],
)
def test_a_chat_that_says_half_of_what_it_means_is_refused_by_name(given: list[str], why: str) -> None:
    said = CliRunner().invoke(chat, ["Hello", *given])
    assert said.exit_code == 2 and why in " ".join(said.output.split()), said.output
