"""May this training run begin? Pure: what the world looks like comes in as arguments."""

from collections.abc import Callable, Collection, Mapping

import msgspec

from processors.dataset.noticed import Noticed
from processors.dataset.selection import Selection
from processors.dataset.taught import NO_RULES, Rule, chosen
from processors.dataset.turns import Manifest
from processors.errors import RuleMissing
from processors.exact_json import exact
from processors.training.agree import disagreement
from processors.training.settings import MOST_SETTINGS, TrainSettings, of_method, spelled
from processors.training.wrong_settings import wrong_setting
from projections.lora_adapters import Adapter
from schemas.adapters import ROLE
from schemas.topics import BY_NAME
from schemas.training import OffsetRange, TrainingRequested

DATA_TOPICS = ("company-data", "tool-result")
# Of a word that somebody else wrote, so much is repeated to him.
_SHOWN = 100


class RunBounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one run may cost. The operator's settings say otherwise."""

    texts: int = 20_000
    """Steps times batch."""
    seconds: float = 21_600.0
    """From the beginning of the training to its end; the reading of its dataset may take as long again."""
    rows_bytes: int = 256 << 20
    """Of the dataset's rows: the child holds them in memory."""
    runs_a_day: int = 0
    """Of one company, begun within 24 hours. 0: any number."""
    seconds_a_day: float = 0.0
    """That runs of one company took within 24 hours. 0: any number."""


class NotAdmitted(msgspec.Struct, frozen=True):
    """Machine readable reason, and a sentence with the remedy."""

    reason: str
    detail: str


def admit(
    request: TrainingRequested,
    methods: Collection[str],
    base_missing: Callable[[str], str | NotAdmitted | None],
    bounds: RunBounds,
    rules: Mapping[str, Rule] = NO_RULES,
) -> TrainSettings | NotAdmitted:
    """Total: any request ends as settings or a refusal. `base_missing` tells why a base cannot be had here, or None.
    `rules`: those that applications here add."""
    settings = plain_settings(request, methods)
    if isinstance(settings, NotAdmitted):
        return settings
    if missing := base_missing(request.base_model):
        return missing if isinstance(missing, NotAdmitted) else NotAdmitted("unknown_base_model", missing)
    try:
        chosen(settings.select.rules, rules)
    except RuleMissing as error:
        return NotAdmitted("unknown_rule", f"select.rules: {error}")
    if (texts := of_steps(settings)) > bounds.texts:
        detail = f"{settings.steps} steps of {settings.batch} are {texts} texts; a run here learns from {bounds.texts}."
        return NotAdmitted("too_much", detail)
    return settings


def plain_settings(request: TrainingRequested, methods: Collection[str]) -> TrainSettings | NotAdmitted:
    """As far as a request can be judged where nothing is trained, so that whoever asks hears it at once."""
    if not ROLE.fullmatch(request.role):
        return NotAdmitted(
            "bad_role",
            f"role {shown(request.role)}: 1 to 64 letters, digits, '.', '_', '-', the first no '.' and no '-'.",
        )
    if request.method not in methods:
        return NotAdmitted(
            "unknown_method", f"method {shown(request.method)}; what can be asked for: {', '.join(methods)}."
        )
    settings = _settings(request.method, request.settings)
    beside = isinstance(settings, TrainSettings) and settings.select.rules  # whose topics the worker knows
    if wrong := wrong_range(request.ranges, topics=tuple(BY_NAME) if beside else DATA_TOPICS):
        return NotAdmitted("bad_ranges", wrong)
    if isinstance(settings, TrainSettings) and (wrong_with := disagreement(request.method, settings)):
        return NotAdmitted(*wrong_with)
    return settings


def of_steps(settings: TrainSettings) -> int:
    """Where epochs say how long, steps say nothing: see `too_often`."""
    return 0 if settings.epochs else settings.steps * settings.batch


def _settings(method: str, text: str) -> TrainSettings | NotAdmitted:
    try:
        settings = of_method(method, msgspec.json.decode(text, type=TrainSettings), exact(text))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return NotAdmitted("bad_settings", wrong_setting(text) or f"settings {shown(text)}: {error}.")
    if (size := len(spelled(settings))) > MOST_SETTINGS:
        detail = f"settings {shown(text)}: {size} bytes with all that is left out; at most {MOST_SETTINGS}."
        return NotAdmitted("bad_settings", f"{detail} Select fewer names.")
    return settings


def shown(word: str) -> str:
    """A word from outside, as far as it helps to see it again."""
    return repr(word if len(word) <= _SHOWN else f"{word[:_SHOWN]}\u2026")


def to_learn(manifest: Manifest, settings: TrainSettings) -> int:
    """Texts of an epoch, at most: by KTO wrong answers are learned from too, also those that were corrected."""
    more = (manifest.bad or 0) + (manifest.corrected or 0) if settings.objective == "kto" else 0
    return manifest.trained + more


_REMEDY = "Produce conversation.ingested or agent_output.ingested events first."
_NARROWED = "The selection may leave out too much: `rillfold dataset build` says what is there for it to choose from."


def enough(manifest: Manifest, settings: TrainSettings) -> NotAdmitted | None:
    """A dataset with nothing to train on is no dataset."""
    if to_learn(manifest, settings):
        return None
    return NotAdmitted(
        "no_data",
        f"{manifest.records} records in the ranges hold no answer of {manifest.company} to train on "
        f"({manifest.held_out} held out). {_REMEDY if settings.select == Selection() else _NARROWED}",
    )


def nowhere(noticed: Collection[Noticed]) -> NotAdmitted | None:
    """Nobody is to believe that something was left out, or narrowed to, that was never there."""
    for member, name in (each for met in noticed for each in met.nowhere()):
        detail = f"select.{member} names {shown(name)}, which no event in the ranges does. {_SEEN}"
        return NotAdmitted("no_such_name", detail)
    return None


_SEEN = "`rillfold dataset build` with the same selection says what is there."


def too_often(settings: TrainSettings, manifest: Manifest, bounds: RunBounds) -> NotAdmitted | None:
    """Epochs cost what there is to learn from, which only the dataset tells."""
    if (texts := settings.epochs * (once := to_learn(manifest, settings))) <= bounds.texts:
        return None
    detail = f"{settings.epochs} epochs of {once} are {texts} texts; a run here learns from {bounds.texts}."
    return NotAdmitted("too_much", detail)


def adapter_name(request: TrainingRequested) -> str:
    return f"{request.company}/{request.role}"


def version_for(adapters: Mapping[str, Adapter], request: TrainingRequested) -> int:
    """One more than the newest version that is ready."""
    name = adapter_name(request)
    return 1 + max((row.version for row in adapters.values() if row.adapter == name and row.event), default=0)


def same_adapter(adapters: Mapping[str, Adapter], request: TrainingRequested, sha256: str) -> Adapter | None:
    """A version that this run made already, or another run with the very same bytes: nothing new to serve."""
    name = adapter_name(request)
    known = (row for row in adapters.values() if row.adapter == name and row.event)
    return next((row for row in known if row.run == request.id or row.sha256 == sha256), None)


def wrong_range(
    ranges: Collection[OffsetRange],
    partitions: Mapping[str, Collection[int]] | None = None,
    topics: Collection[str] = DATA_TOPICS,
) -> str | None:
    """`partitions`: those of each topic that the rule learns from, where that is known."""
    topics = topics if partitions is None else tuple(partitions)
    taken: set[tuple[str, int]] = set()
    for part in ranges:
        if part.topic not in topics:
            return f"topic {shown(part.topic)} holds no training data; known: {', '.join(topics)}."
        if part.partition < 0 or not 0 <= part.start <= part.stop:
            return f"{part.topic}/{part.partition} [{part.start}, {part.stop}) is no range."
        if (part.topic, part.partition) in taken:
            return f"{part.topic}/{part.partition} stands twice."
        if partitions is not None and part.partition not in partitions[part.topic]:
            return f"{part.topic} has {len(partitions[part.topic])} partitions, no {part.partition}."
        taken.add((part.topic, part.partition))
    return None
