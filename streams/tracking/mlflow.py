"""MLflow's REST API, as far as runs need it: a run is found by a tag of ours or made, and what is known is noted."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import msgspec

from processors.training.tracked import Ending, FigureAt, RunNote
from schemas.words import shortened
from streams.tracking.errors import MlflowAway, MlflowFails, MlflowRefused

API, ARTIFACTS = "api/2.0/mlflow", "api/2.0/mlflow-artifacts/artifacts"
SECONDS = 10.0
"""So long MLflow may take for one answer."""
OURS = "rillfold."
KEY = f"{OURS}key"
"""The tag that a run is found by: a digest, since MLflow's filters take no quotes."""
TAG_BYTES, PARAM_BYTES = 5_000, 500
FIGURES_AT_ONCE, WORDS_AT_ONCE = 1_000, 100
"""MLflow's own bounds of one request."""
DIGEST = 36
"""Characters of a dataset's digest that MLflow keeps; the whole one is a tag."""
REMEMBERED = 10_000
NO_NAME = re.compile(r"[^A-Za-z0-9_. -]")
STATUS: Mapping[Ending, str] = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
GONE, THERE = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
NOBODY = (401, 403, 407, 408, 429, 502, 503, 504)
"""With these it answers nobody, or not us: no run is to blame for them."""

Told = TypeVar("Told")
Ours = Callable[[], Awaitable[None]]
"""Raises where somebody else notes runs by now."""
_Call = tuple[str, str, dict[str, Any]]
"""Method, path, and what the client sends along."""


class _Experiment(msgspec.Struct):
    experiment_id: str


class _ExperimentFound(msgspec.Struct):
    experiment: _Experiment


class MlflowRun(msgspec.Struct):
    """What MLflow calls a run's info."""

    run_id: str
    artifact_uri: str = ""
    start_time: int = 0


class _Info(msgspec.Struct):
    info: MlflowRun


class _RunMade(msgspec.Struct):
    run: _Info


class _RunsFound(msgspec.Struct):
    runs: list[_Info] = []


class _Wrong(msgspec.Struct):
    error_code: str
    message: str = ""


class Mlflow:
    """Noting the same again changes nothing: what is there already is found, and MLflow keeps one of what is alike; a
    file store alone writes a figure down as often as it is told it."""

    def __init__(self, client: httpx.AsyncClient, prefix: str = "") -> None:
        """`prefix`: of the experiments, one a company, so that installations do not mix."""
        self._client, self._prefix = client, prefix
        self.url = str(client.base_url).rstrip("/")
        self._experiments: dict[str, str] = {}
        self._runs: OrderedDict[str, MlflowRun] = OrderedDict()
        self._trials: dict[str, MlflowRun] = {}
        self.requests = 0
        """So many were begun."""

    async def answers(self) -> None:
        """Raises MlflowAway where it does not. Nothing is made."""
        with suppress(MlflowRefused):
            await self._named(f"{self._prefix}rillfold")

    async def takes_a_run(self, company: str) -> None:
        """Raises MlflowAway or MlflowRefused where it takes none, whatever the run says: one is made, told a
        tag, a figure, a paper and its end, and put into the bin."""
        trial = _trial(company)
        run = self._trials.pop(company, None) or await self._made(await self._experiment(company), trial)
        try:
            for method, path, body in _all(run, trial):
                await self._asked(method, path, dict[str, Any], **body)
            await self._post("runs/delete", {"run_id": run.run_id}, dict[str, Any])
        except MlflowAway:
            self._trials[company] = run
            raise

    async def note(self, note: RunNote, ours: Ours) -> None:
        """Raises MlflowAway, and MlflowRefused once all else of the note was noted. `ours` is asked right before a run
        is made: two would make it twice."""
        try:
            await self._noted(note, ours)
        except MlflowRefused as error:
            if error.code != GONE:
                raise
            self._experiments.pop(note.company, None)
            self._runs.pop(_key(note), None)
            await self._noted(note, ours)

    async def _noted(self, note: RunNote, ours: Ours) -> None:
        run, refused = await self._run(note, ours), list[MlflowRefused]()
        for method, path, body in _all(run, note):
            try:
                await self._asked(method, path, dict[str, Any], **body)
            except MlflowRefused as error:
                refused.append(error)
        if refused:
            raise refused[0]

    async def _run(self, note: RunNote, ours: Ours) -> MlflowRun:
        key = _key(note)
        if key not in self._runs:
            experiment = await self._experiment(note.company)
            if (run := await self._found(experiment, key)) is None:
                await ours()
                run = await self._made(experiment, note)
            self._runs[key] = run
        self._runs.move_to_end(key)
        while len(self._runs) > REMEMBERED:
            self._runs.popitem(last=False)
        return self._runs[key]

    async def _found(self, experiment: str, key: str) -> MlflowRun | None:
        """Also one that somebody has put into the bin: it is not made anew. Of several always the same."""
        wanted = {"experiment_ids": [experiment], "filter": f"tags.`{KEY}` = '{key}'", "run_view_type": "ALL"}
        found = await self._post("runs/search", {**wanted, "max_results": 10}, _RunsFound)
        return min((each.info for each in found.runs), key=lambda run: (run.start_time, run.run_id), default=None)

    async def _made(self, experiment: str, note: RunNote) -> MlflowRun:
        """With the tag that it is found by, at once: whoever dies after this finds it."""
        tags = {"key": _key(note), "run": note.run, "company": note.company}
        body = {
            "experiment_id": experiment,
            "start_time": note.begun,
            "run_name": f"{note.company}/{note.role}",
            "tags": [{"key": f"{OURS}{name}", "value": value} for name, value in tags.items()],
        }
        return (await self._post("runs/create", body, _RunMade)).run.info

    async def _experiment(self, company: str) -> str:
        if company not in self._experiments:
            name = f"{self._prefix}rillfold/{company}"
            try:
                known = await self._named(name)
            except MlflowRefused as error:
                if error.code != GONE:
                    raise
                known = await self._begun(name)
            self._experiments[company] = known
        return self._experiments[company]

    async def _begun(self, name: str) -> str:
        """Another process may have been faster."""
        try:
            return (await self._post("experiments/create", {"name": name}, _Experiment)).experiment_id
        except MlflowRefused as error:
            if error.code != THERE:
                raise
            return await self._named(name)

    async def _named(self, name: str) -> str:
        path = f"{API}/experiments/get-by-name"
        found = await self._asked("GET", path, _ExperimentFound, params={"experiment_name": name})
        return found.experiment.experiment_id

    async def _post(self, path: str, body: Mapping[str, Any], kind: type[Told]) -> Told:
        return await self._asked("POST", f"{API}/{path}", kind, json=body)

    async def _asked(self, method: str, path: str, kind: type[Told], **more: Any) -> Told:
        self.requests += 1
        try:
            async with asyncio.timeout(SECONDS):
                answer = await self._client.request(method, path, timeout=SECONDS, **more)
        except (httpx.HTTPError, TimeoutError) as error:
            nobody = isinstance(error, TimeoutError | httpx.TimeoutException | httpx.ConnectError)
            told = f"does not answer ({type(error).__name__}: {error})"
            raise (MlflowAway if nobody else MlflowFails)(self.url, told) from error
        away = MlflowAway if answer.status_code in NOBODY else MlflowFails
        try:
            if answer.is_success:
                return msgspec.json.decode(answer.content or b"{}", type=kind)
            wrong = msgspec.json.decode(answer.content, type=_Wrong)
        except msgspec.MsgspecError as error:
            raise away(self.url, f"answers {path} with {answer.status_code} and no JSON of its own") from error
        if answer.status_code >= 500 or answer.status_code in NOBODY:
            raise away(self.url, f"answers {path} with {answer.status_code}: {wrong.message:.300}")
        raise MlflowRefused(self.url, wrong.error_code, wrong.message)


def _key(note: RunNote) -> str:
    return sha256(f"{note.company}/{note.run}".encode(errors="replace")).hexdigest()[:32]


def _trial(company: str) -> RunNote:
    """Said anew each time: of what it holds already, a database writes nothing."""
    word = uuid4().hex
    return RunNote(
        company=company,
        run=word,
        role="a trial: are runs taken?",
        begun=0,
        tags={"trial": word},
        figures=(FigureAt("trial", float(int(word[:8], 16)), 0, 0),),
        papers={"trial.json": "{}"},
        ended=("finished", 0),
    )


def _all(run: MlflowRun, note: RunNote) -> Iterator[_Call]:
    yield from _calls(run.run_id, note)
    yield from _papers(run, note)
    yield from _last(run.run_id, note)


def _calls(run: str, note: RunNote) -> Iterator[_Call]:
    """Figures and words apart: one that is refused takes no other with it."""
    metrics = [{"key": _name(it.name), "value": it.value, "step": it.step, "timestamp": it.at} for it in note.figures]
    tags = [{"key": f"{OURS}{name}", "value": shortened(value, TAG_BYTES)} for name, value in note.tags.items()]
    params = [{"key": _name(name), "value": shortened(value, PARAM_BYTES)} for name, value in note.params.items()]
    for kind, most, all_ in (
        ("params", WORDS_AT_ONCE, params),
        ("tags", WORDS_AT_ONCE, tags),
        ("metrics", FIGURES_AT_ONCE, metrics),
    ):
        for first in range(0, len(all_), most):
            yield _posted("runs/log-batch", {"run_id": run, kind: all_[first : first + most]})
    if note.dataset:
        yield _posted("runs/log-inputs", {"run_id": run, "datasets": [_dataset(note)]})


def _dataset(note: RunNote) -> dict[str, Any]:
    """By our own hash, which is one of all its content."""
    source = {"manifest": note.dataset, "run": note.run}
    return {
        "tags": [{"key": "mlflow.data.context", "value": "training"}],
        "dataset": {
            "name": note.company,
            "digest": note.dataset[:DIGEST],
            "source_type": "rillfold",
            "source": msgspec.json.encode(source).decode(),
        },
    }


def _papers(run: MlflowRun, note: RunNote) -> Iterator[_Call]:
    """Where the server takes them itself; who keeps them elsewhere gives its clients keys that we have none of."""
    if run.artifact_uri.startswith("mlflow-artifacts:"):
        place = f"{ARTIFACTS}{urlsplit(run.artifact_uri).path}"
        for name, text in note.papers.items():
            yield "PUT", f"{place}/{name}", {"content": text.encode(errors="replace")}


def _last(run: str, note: RunNote) -> Iterator[_Call]:
    """A run has ended once all else is there."""
    body: dict[str, Any] = {"run_name": note.name} if note.name else {}
    if note.ended is not None:
        ending, at = note.ended
        body |= {"status": STATUS[ending], "end_time": at}
    if body:
        yield _posted("runs/update", {"run_id": run, **body})


def _posted(path: str, body: dict[str, Any]) -> _Call:
    return "POST", f"{API}/{path}", {"json": body}


def _name(name: str) -> str:
    """As MLflow allows: a name is a path of its file store, too."""
    return NO_NAME.sub("_", name)[:250]
