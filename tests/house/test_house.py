"""The house as docs/architecture.md draws it: one-way rooms, small files, annotated functions, a whole wheel."""

import ast
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from schemas.codec.reader import IN_C

ROOT = Path(__file__).parents[2]
ROOMS = ("rillfold", "schemas", "projections", "processors", "streams", "gpu_workers")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
NAMELESS = {"utils", "util", "helpers", "common", "base", "manager", "misc", "core"}


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    for function in functions(path):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= 60, f"{function.name} has {length} lines"
        assert function.returns is not None, f"{function.name} does not say what it returns"


def test_c_can_be_read_in_one_sitting_too() -> None:
    written = [path for room in ROOMS for path in (ROOT / room).rglob("*.[ch]")]
    assert written
    assert not {path.name: n for path in written if (n := len(path.read_text().splitlines())) > 400}


def test_most_files_and_functions_are_small() -> None:
    files = sorted(len(path.read_text().splitlines()) for path in SOURCES)
    lengths = sorted((f.end_lineno or 0) - f.lineno + 1 for path in SOURCES for f in functions(path))
    assert files[int(len(files) * 0.9)] <= 250
    assert lengths[int(len(lengths) * 0.9)] <= 25


def test_no_folder_holds_more_than_one_looks_through() -> None:
    modules = Counter(path.parent for path in SOURCES if path.name != "__init__.py")
    assert not {str(folder.relative_to(ROOT)): n for folder, n in modules.items() if n > 14}


def test_every_folder_says_its_duty_in_one_line() -> None:
    rooms = {path.parent for path in SOURCES}
    said = {folder: ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) for folder in rooms}
    assert not [folder for folder, duty in said.items() if not duty or "\n" in duty]


def test_a_class_has_a_name_of_its_own() -> None:
    names = [
        (node.name, path)
        for path in SOURCES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    ]
    counts = Counter(name for name, _ in names)
    assert not [f"{name} in {path.relative_to(ROOT)}" for name, path in names if counts[name] > 1]


def test_every_room_has_a_name_that_says_something() -> None:
    assert not [path for path in SOURCES if path.stem in NAMELESS or path.parent.name in NAMELESS]


def test_only_settings_reads_the_environment() -> None:
    reads = re.compile(r"os\.environ(?!\.update\()|getenv\(")
    readers = [path for path in SOURCES if reads.search(path.read_text())]
    assert {str(path.relative_to(ROOT)) for path in readers} <= {"rillfold/settings.py"}


def test_only_one_place_makes_clients_of_kafka() -> None:
    """Who makes one elsewhere forgets how we get in."""
    makes = re.compile(r"AIOKafka(Consumer|Producer|AdminClient)\(|bootstrap_servers=")
    makers = {str(path.relative_to(ROOT)) for path in SOURCES if makes.search(path.read_text())}
    assert makers == {"streams/log/kafka/access.py"}


def test_imports_go_one_way() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_the_wheel_holds_every_room_and_schema(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {str(path.relative_to(ROOT)) for path in SOURCES}
    wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / "schemas" / "avro").glob("*.avsc")}
    assert wanted <= inside
    built = [name for name in inside if name.startswith("schemas/codec/native.") and name.endswith(".so")]
    assert len(built) == IN_C and ("none-any" in wheel.name) is not IN_C


def test_the_command_runs_from_a_folder_with_its_own_schemas(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "__init__.py").write_text("raise RuntimeError('a stranger')\n")
    console = Path(sys.executable).with_name("rillfold")
    run = subprocess.run([console, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_shadowed_room_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "__init__.py").write_text("")
    run = subprocess.run([sys.executable, "-m", "rillfold"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode != 0
    assert str(tmp_path / "schemas") in run.stderr
    assert "environment of its own" in run.stderr


@pytest.mark.parametrize("said", ["--version", "--help", "query --help", "produce --help"])
def test_the_command_line_starts_light(said: str) -> None:
    code = (
        "import sys, rillfold.cli as c\n"
        f"try: c.rillfold({said.split()})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'faust', 'transformers', 'fastapi', 'psycopg'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("worker", ["bridge", "sink", "train", "serve", "react", "mlflow"])
def test_a_worker_that_folds_nothing_starts_without_faust(worker: str) -> None:
    code = (
        f"import sys, rillfold.workers.{worker}\n"
        "heavy = {'torch', 'transformers', 'faust'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_process_with_a_model_leaves_out_what_quantises() -> None:
    code = (
        "from importlib.util import find_spec\n"
        "from gpu_workers.bases.before_torch import settle\n"
        "settle()\n"
        "assert find_spec('torch') and not find_spec('bitsandbytes')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
