"""The Berkeley leaderboard's own checker and cases, out of its wheel, which is downloaded and never installed."""

import ast
import json
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from processors.measure.berkeley import kind_of, verdict

WHEEL = "bfcl-eval==2026.3.23"
CATEGORIES = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
)
SILENT = ("irrelevance", "live_irrelevance", "live_relevance")


class Case(NamedTuple):
    id: str
    category: str
    tools: list[dict[str, Any]]
    accepted: list[dict[str, Any]]
    output: Any


class Official:
    """Theirs, imported out of the wheel. Handlers of models and converters of other languages stay out."""

    def __init__(self, wheel: Path) -> None:
        sys.path.insert(0, str(wheel))
        _stub("bfcl_eval.constants.model_config", MODEL_CONFIG_MAPPING={"rillfold": _Config()})
        converters = "bfcl_eval.eval_checker.ast_eval.type_convertor"
        _stub(f"{converters}.java_type_converter", java_type_converter=None)
        _stub(f"{converters}.js_type_converter", js_type_converter=None)
        from bfcl_eval.constants.enums import Language  # type: ignore[import-not-found]
        from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker  # type: ignore[import-not-found]

        self._check, self._python = ast_checker, Language.PYTHON
        self._is_calls = _only(wheel, "bfcl_eval/utils.py", "is_function_calling_format_output")
        self.crashed: Counter[str] = Counter()

    def right(self, case: Case) -> bool | None:
        """As their runner asks: first whether it is a list of calls at all, then the checker. None: the checker itself
        broke on it, and there is no verdict."""
        if not self._is_calls(case.output):
            return False
        try:
            found = self._check(case.tools, case.output, case.accepted, self._python, case.category, "rillfold")
        except Exception as error:
            self.crashed[type(error).__name__] += 1
            return None
        return bool(found["valid"])


class _Config:
    underscore_to_dot = False


def _stub(name: str, **inside: Any) -> None:
    module = ModuleType(name)
    module.__dict__.update(inside)
    sys.modules[name] = module


def _only(wheel: Path, module: str, function: str) -> Callable[[Any], bool]:
    """One function of a module whose imports are not installed here."""
    with zipfile.ZipFile(wheel) as held:
        tree = ast.parse(held.read(module))
    (wanted,) = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == function]
    inside: dict[str, Any] = {}
    exec(compile(ast.Module([wanted], []), module, "exec"), inside)
    found: Callable[[Any], bool] = inside[function]
    return found


def downloaded(folder: Path) -> Path:
    line = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), WHEEL]
    subprocess.run(line, check=True)
    return next(folder.glob("bfcl_eval-*.whl"))


def oracle(wheel: Path) -> list[Case]:
    """Every case with its own right answer: of each argument the first value that is accepted."""
    with zipfile.ZipFile(wheel) as held:
        return [case for category in CATEGORIES for case in _of(held, category)]


def _of(held: zipfile.ZipFile, category: str) -> Iterator[Case]:
    data = "bfcl_eval/data"
    answers = {each["id"]: each["ground_truth"] for each in _lines(held, f"{data}/possible_answer", category)}
    for each in _lines(held, data, category):
        tools, accepted = each["function"], answers[each["id"]]
        yield Case(each["id"], category, tools, accepted, [right_call(tools, call) for call in accepted])


def _lines(held: zipfile.ZipFile, folder: str, category: str) -> Iterator[dict[str, Any]]:
    text = held.read(f"{folder}/BFCL_v4_{category}.json").decode()
    return (json.loads(line) for line in text.splitlines() if line.strip())


def right_call(
    tools: Sequence[Mapping[str, Any]], call: Mapping[str, Mapping[str, list[Any]]]
) -> dict[str, dict[str, Any]]:
    """Empty text is given only where the tool requires what accepts nothing else."""
    ((name, accepted),) = call.items()
    required = next(tool for tool in tools if tool["name"] == name)["parameters"].get("required", ())
    given = {argument: [each for each in values if each != ""] for argument, values in accepted.items()}
    right = {argument: chosen(values[0]) for argument, values in given.items() if values}
    return {name: right | {each: "" for each in required if "" in accepted.get(each, ()) and each not in right}}


def chosen(value: Any) -> Any:
    """Of an object each value is a list of those that are accepted."""
    if isinstance(value, dict):
        first = {key: each[0] if isinstance(each, list) and each else each for key, each in value.items()}
        return {key: each for key, each in first.items() if each != ""}
    return [chosen(each) for each in value] if isinstance(value, list) else value


def silent(wheel: Path) -> Counter[str]:
    """Of the cases without a right call: nothing said, a call, and no list of calls. Their runner's rule in words."""
    counted: Counter[str] = Counter()
    with zipfile.ZipFile(wheel) as held:
        for category in SILENT:
            for each in _lines(held, "bfcl_eval/data", category):
                for output, called in (([], False), ([{"f": {}}], True), ("broken", False)):
                    wanted = called is (kind_of(category) == "relevance")
                    differs = verdict(kind_of(category), each["function"], output).right is not wanted
                    counted["different" if differs else "equal"] += 1
    return counted
