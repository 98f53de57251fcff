"""The docs say what the code does: settings, verbs, projections, links; and nothing of the machine they came from."""

import ast
import inspect
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from projections.catalog import PROJECTIONS
from projections.projection import OTHER_GROUPS
from rillfold.cli import VERBS
from rillfold.processes import COMMANDS, WORKERS
from rillfold.settings import PREFIX, Settings
from schemas.errors import Stop
from streams import errors

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SAID_ELSEWHERE = {
    "MissingOffsets",
    "TooMuchData",
    "ShutOut",
    "Misconfigured",
    "UnreadableDsn",
    "UnknownTopic",
}
"""By a command or a request, by those below it, or whole in its own line."""
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def text_of_all() -> str:
    return "\n".join(page.read_text() for page in PAGES)


@pytest.mark.parametrize("name", [field.name for field in msgspec.structs.fields(Settings)])
def test_every_setting_is_documented(name: str) -> None:
    assert f"`{PREFIX}{name.upper()}`" in (ROOT / "docs" / "settings.md").read_text()


def test_no_setting_is_documented_that_is_none() -> None:
    known = {PREFIX + field.name.upper() for field in msgspec.structs.fields(Settings)}
    named = set(re.findall(PREFIX + r"[A-Z_]+", text_of_all()))
    assert named <= known | {f"{PREFIX}FAILPOINT"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_documented(verb: str) -> None:
    assert re.search(rf"rillfold {verb}\b", text_of_all())


def ways_to_stop() -> list[ast.ClassDef]:
    """Whatever may hold up a partition, or end a fold or a sink."""
    classes = [node for node in ast.parse(inspect.getsource(errors)).body if isinstance(node, ast.ClassDef)]
    return [
        each for each in classes if issubclass(getattr(errors, each.name), Stop) and each.name not in SAID_ELSEWHERE
    ]


def test_operators_are_told_of_each_way_to_stand_still() -> None:
    """By three words in a row of what it says, which no other says, where an operator looks for them."""
    said = {
        error.name: threes(" ".join(str(node.value) for node in ast.walk(error) if isinstance(node, ast.Constant)))
        for error in ways_to_stop()
    }
    told = re.findall(r"^- \*\*(.*?)\*\*", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    named = {three for heading in told for three in threes(heading)}
    others = {name: {three for other in said.keys() - {name} for three in said[other]} for name in said}
    assert [name for name in said if not (said[name] - others[name]) & named] == []


def threes(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[A-Za-z]{2,}", text)
    return set(zip(words, words[1:], words[2:], strict=False))


def test_the_docs_name_every_worker_that_is_watched_and_every_group_that_is_taken() -> None:
    watched = (ROOT / "docs" / "operations.md").read_text().partition("All workers (")[2].partition(")")[0]
    assert set(re.findall(r"\w+", watched)) - {"rillfold", "worker"} == set(WORKERS)
    taken = (ROOT / "docs" / "app.md").read_text().partition("the group of another worker (")[2].partition(")")[0]
    assert set(re.findall(r"\w+", taken)) == OTHER_GROUPS


@pytest.mark.parametrize("worker", COMMANDS.values(), ids=" ".join)
def test_every_worker_is_documented(worker: tuple[str, ...]) -> None:
    assert f"rillfold {' '.join(worker)}" in text_of_all()


@pytest.mark.parametrize("name", PROJECTIONS)
def test_every_projection_is_documented(name: str) -> None:
    assert f"`{name}`" in text_of_all()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_of_a_file_stands_in_it(page: Path) -> None:
    for name, text in re.findall(r"^<!-- (\S+) -->\n```\w+\n(.*?)^```$", page.read_text(), flags=re.M | re.S):
        assert text in (ROOT / name).read_text(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_a_page_names_are_there(page: Path) -> None:
    there = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for path, file, test in re.findall(r"`(?:(tests/[\w/.]+)|(test_\w+\.py)|(test_\w+))`", page.read_text()):
        assert not path or (ROOT / path).exists(), path
        assert not file or list((ROOT / "tests").rglob(file)), file
        assert not test or f"def {test}(" in there, test


def test_commands_in_the_docs_are_real() -> None:
    named = set(re.findall(r"^(?:\$ )?rillfold ([a-z-]+)", text_of_all(), flags=re.MULTILINE))
    assert named <= set(VERBS)


def test_nothing_names_this_machine_or_a_package_host() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    hosts = [
        "pypi.org",
        "pythonhosted" + ".org",
        "repo1.maven",
        "repo.maven" + ".apache",
        "crates.io",
        "registry.npmjs",
    ]
    for name in tracked:
        path = ROOT / name
        if path == Path(__file__) or not path.is_file() or path.suffix in {".bin", ".png"}:
            continue
        content = path.read_text(errors="replace")
        found = [host for host in [*hosts, "/work/main", "/root/"] if host in content]
        assert not found, f"{name}: {found}"
