"""Classes and stored schemas are equal, and what was forgotten about an event is named."""

from __future__ import annotations

import json
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import msgspec
import pytest

import schemas
from schemas.codec import compat
from schemas.codec.catalog import StoredEvent, catalog, classes, kind_of, structs_in
from schemas.codec.derive import avro_of
from schemas.envelope import Event
from schemas.errors import Stop
from schemas.rejected import RecordRejected
from schemas.topics import TOPIC_OF
from schemas.words import WORDS

ROOT = Path(schemas.__file__).parents[1]
AVRO = ROOT / "schemas" / "avro"
ENVELOPE = ["id", "type", "version", "company", "time", "causation", "correlation"]


def events() -> list[type[Event]]:
    """Also those of a module that nothing imports yet."""
    for module in pkgutil.walk_packages(schemas.__path__, "schemas."):
        import_module(module.name)
    found, left = [], [Event]
    while left:
        children = left.pop().__subclasses__()
        found += children
        left += children
    return found


@pytest.mark.parametrize("cls", TOPIC_OF, ids=lambda cls: str(kind_of(cls)))
def test_a_class_and_its_stored_schema_are_equal(cls: type[Event]) -> None:
    path = AVRO / f"{kind_of(cls)}.avsc"
    assert path.exists(), f"{cls.__name__} has no schema. Run: python tests/upgrade/write.py"
    same = compat.shape(json.dumps(avro_of(cls)).encode()) == compat.shape(path.read_bytes())
    assert same, f"{cls.__name__} differs from {path.name}. Add a version (docs/schemas.md), or undo the change."


def words_of(schema: object, path: str = "") -> dict[str, str | None]:
    """The path of every field that holds text to the kind it is given."""
    if isinstance(schema, list):
        return {name: word for branch in schema for name, word in words_of(branch, path).items()}
    if isinstance(schema, str):
        return {path: None} if schema == "string" else {}
    assert isinstance(schema, dict)
    if schema["type"] == "array":
        return words_of(schema["items"], path)
    found: dict[str, str | None] = {}
    for field in schema["fields"]:
        inside = words_of(field["type"], f"{path}.{field['name']}")
        found |= {name: word or field.get("word") for name, word in inside.items()}
    return found


@pytest.mark.parametrize("entry", catalog().by_kind.values(), ids=lambda entry: str(entry.kind))
def test_every_text_has_a_kind_of_word_and_every_version_the_same(entry: StoredEvent) -> None:
    own, newest = words_of(entry.source), words_of(avro_of(entry.cls))
    assert {name for name, word in own.items() if word not in WORDS} == {".type"}, "annotate it: schemas/words.py"
    assert {name: word for name, word in own.items() if name in newest and word != newest[name]} == {}
    if entry.kind == kind_of(entry.cls):
        assert own == newest


def test_what_was_refused_is_kept_whatever_it_holds() -> None:
    own = words_of(catalog().by_class[RecordRejected].source)
    assert {own[f".{name}"] for name in ("topic", "headers.key", "reason", "detail")} == {"document"}


def test_a_kind_of_word_is_no_part_of_how_bytes_are_laid_out() -> None:
    """Neither of what is recorded of a schema nor of its fingerprint: ADR 11."""
    avsc = (AVRO / "job.stepped.v1.avsc").read_bytes()
    assert compat.record_of(avsc.replace(b'"word": "text"', b'"word": "document"')) == compat.record_of(avsc)


def test_every_event_class_lives_on_a_topic() -> None:
    assert [cls.__name__ for cls in events() if cls.__module__.startswith("schemas.") and cls not in TOPIC_OF] == []


def test_wire_types_are_unique_and_past_or_dotted() -> None:
    assert len(classes()) == len(TOPIC_OF)
    assert [name for name in classes() if not re.fullmatch(r"[a-z_]+\.[a-z_]+", name)] == []


def test_every_stored_schema_begins_with_the_envelope() -> None:
    for entry in catalog().by_kind.values():
        assert [field["name"] for field in entry.source["fields"]][: len(ENVELOPE)] == ENVELOPE


def test_no_stored_schema_has_items_without_bytes_or_refers_to_itself() -> None:
    """An array of such items could promise 2^62 of them in ten bytes; a record within itself could nest for ever."""

    def smallest(schema: object, inside: tuple[str, ...]) -> int:
        if isinstance(schema, str):
            assert schema not in inside, f"{schema} contains itself"
            return 0 if schema == "null" else 1
        if isinstance(schema, list):
            return 1 + min(smallest(branch, inside) for branch in schema)
        assert isinstance(schema, dict)
        if schema["type"] == "array":
            assert smallest(schema["items"], inside) > 0
            return 1
        name = f"{schema['namespace']}.{schema['name']}"
        return sum(smallest(field["type"], (*inside, name)) for field in schema["fields"])

    for entry in catalog().by_kind.values():
        assert smallest(entry.source, ()) > 0


def test_every_struct_is_frozen_and_refuses_unknown_fields() -> None:
    for cls in {struct for event in TOPIC_OF for struct in structs_in(event)}:
        config = cls.__struct_config__
        assert (config.frozen, config.forbid_unknown_fields) == (True, True), cls.__name__


def test_every_event_and_every_struct_in_one_says_what_it_is_in_words_of_its_own() -> None:
    said = {struct: vars(struct).get("__doc__") for event in TOPIC_OF for struct in structs_in(event)}
    assert [cls.__name__ for cls, doc in said.items() if not doc] == []
    assert len(set(said.values())) == len(said)


def test_the_stored_schemas_pass_the_start_up_checks() -> None:
    compat.check_stored()
    compat.check_compatible()


def test_the_recorded_judgement_is_of_these_schemas() -> None:
    assert (AVRO / compat.JUDGED).read_text().strip() == compat.judgement(), "Run: python tests/upgrade/write.py"


def test_schemas_that_were_not_judged_yet_are_judged_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[bool] = []
    monkeypatch.setattr(compat, "check_compatible", lambda: judged.append(True))
    compat.check_at_start()
    monkeypatch.setattr(compat, "judgement", lambda: "of other schemas")
    compat.check_at_start()
    assert judged == [True]


def test_an_edited_old_schema_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "job.stepped.v1"
    edited = (AVRO / f"{name}.avsc").read_bytes().replace(b'"step"', b'"stage"')
    monkeypatch.setattr(compat, "_stored", lambda n: edited if n == name else (AVRO / f"{n}.avsc").read_bytes())
    with pytest.raises(Stop, match=r"job\.stepped\.v1\.avsc was edited .* docs/schemas\.md"):
        compat.check_stored()


def test_a_better_doc_is_not_an_edit() -> None:
    path = AVRO / "job.stepped.v1.avsc"
    schema = json.loads(path.read_bytes())
    schema["doc"] = "Said better."
    assert compat.shape(json.dumps(schema).encode()) == compat.shape(path.read_bytes())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda fields: fields.append({"name": "extra", "type": "string"}), "extra"),
        (lambda fields: fields[-1].update(type="string"), "string"),
    ],
    ids=["a field without default", "another type"],
)
def test_an_incompatible_next_version_is_refused(change: object, reason: str) -> None:
    older = catalog().by_kind[kind_of(classes()["job.completed"])].source
    newer = json.loads(json.dumps(older))
    change(newer["fields"])
    reasons = compat.incompatibilities(newer, older)
    assert reasons and reason in " ".join(reasons)


def test_a_version_without_its_upcaster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "UPCASTERS", {})
    with pytest.raises(Stop, match=r"No upcaster lifts conversation\.ingested\.v1 to version 2"):
        compat.check_stored()


def test_a_class_that_was_never_recorded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class JobPaused(Event, frozen=True, kw_only=True):
        type: str = "job.paused"
        version: int = 1

    monkeypatch.setattr(compat, "classes", lambda: {**classes(), "job.paused": JobPaused})
    with pytest.raises(Stop, match=r"job\.paused\.v1 has a class, but is not on record"):
        compat.check_stored()


def test_schemas_are_written_as_msgspec_would_read_them() -> None:
    for path in AVRO.glob("*.avsc"):
        assert msgspec.json.decode(path.read_bytes())["doc"], f"{path.name} has no doc"
