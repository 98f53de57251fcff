"""What goes with an adapter: a model card for people and hubs, and a statement of provenance (SLSA) for machines.

Both are made of the adapter's row alone, so the same row gives the same bytes, and no clock is in them.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gpu_workers.adapters.keys import CARD, PROVENANCE
from gpu_workers.adapters.port import AdapterStore
from gpu_workers.errors import NotSigned, SignerUnknown
from projections.lora_adapters import Adapter

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:rillfold:training-run:1"
BUILDER = "urn:rillfold:worker:train"
BROUGHT = "brought"
"""The method of an adapter that was trained elsewhere: nothing is stated here of how."""


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """With what an adapter was trained, where the row does not say it."""

    release: str = ""
    """Of Rillfold."""
    lock_sha256: str = ""
    """Of requirements.lock, where it is at hand."""
    packages_sha256: str = ""
    """Over names and versions of all that is installed."""
    template_sha256: str = ""
    """Of the base model's chat template."""


def papers_of(row: Adapter, files: Mapping[str, str], build: Build | None = None) -> dict[str, bytes]:
    """`files`: the sha256 of each of its own. Without a `build`, nothing is said of it: older releases kept none."""
    said = {CARD: "\n".join(_card(row)).encode() + b"\n"}
    if row.method != BROUGHT:
        said[PROVENANCE] = msgspec.json.format(msgspec.json.encode(_statement(row, files, build)), indent=1) + b"\n"
    return said


def put_papers(store: AdapterStore, row: Adapter, build: Build | None = None, card: bytes | None = None) -> None:
    """Beside an adapter that was put, and signed. `card`: its own, where it was brought with one."""
    papers = papers_of(row, store.files(row.sha256, row.company), build)
    if card is not None:
        papers[CARD] = card
    store.put_papers(row.sha256, f"{row.adapter}@{row.version}", papers)


def has_papers(store: AdapterStore, sha256: str) -> bool:
    """Which are as somebody signed them, or may be: a key that is not known here is no reason to take them away."""
    try:
        store.signer(sha256)
    except SignerUnknown:
        return True
    except NotSigned:
        return False
    return True


def _card(row: Adapter) -> Iterator[str]:
    """Its head is YAML, in which JSON's strings are strings."""
    yield "---"
    yield f"base_model: {_quoted(row.base_model)}"
    yield "library_name: peft"
    yield "pipeline_tag: text-generation"
    yield "tags:"
    yield from (f"- {tag}" for tag in ("lora", "tool-calling", "rillfold"))
    if row.evaluation:
        yield from _index(row)
    yield "---"
    yield ""
    yield f"# {_plain(row.adapter)}@{row.version}"
    yield ""
    how = "Brought here by its operator" if row.method == BROUGHT else f"Trained by {_plain(row.method)}"
    yield f"{how}: rank {row.rank}, alpha {row.alpha:g}, on `{_plain(row.base_model)}`."
    yield ""
    yield from _facts(row)
    if row.ranges:
        yield from ("", "## Data", "", "| topic | partition | from offset | up to, without |", "|---|---|---|---|")
        yield from (f"| {_plain(each.topic)} | {each.partition} | {each.start} | {each.stop} |" for each in row.ranges)


def _index(row: Adapter) -> Iterator[str]:
    assert row.evaluation is not None
    yield "model-index:"
    yield f"- name: {_quoted(f'{row.adapter}@{row.version}')}"
    yield "  results:"
    yield "  - task:"
    yield "      type: text-generation"
    yield "    dataset:"
    yield "      name: held-out requests of its own data"
    yield f"      type: {_quoted(f'sha256:{row.manifest}')}"
    yield "    metrics:"
    yield "    - type: exact_match"
    yield f"      value: {row.evaluation.after:.6f}"


def _facts(row: Adapter) -> Iterator[str]:
    yield f"- weights and settings: sha256 `{_plain(row.sha256)}`"
    yield f"- base: sha256 `{_plain(row.base_sha256)}`"
    if row.method != BROUGHT:
        yield f"- dataset: manifest sha256 `{_plain(row.manifest)}`, seed {row.seed}"
    if score := row.evaluation:
        yield f"- held out: {score.before:.3f} -> {score.after:.3f} exact on {score.examples} requests"
    if row.verdict:
        said = "promoted" if row.promoted else "not promoted"
        yield f"- gate: {said}, {_plain(row.verdict)}. {_plain(row.verdict_detail)}"


def _statement(row: Adapter, files: Mapping[str, str], build: Build | None) -> dict[str, Any]:
    identity = _identity(row)
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": files[name]}} for name in sorted(files)],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "adapter": row.adapter,
                    "version": row.version,
                    "method": row.method,
                    "seed": row.seed,
                    "ranges": msgspec.to_builtins(row.ranges),
                    "settings": identity.pop("settings", {}),
                },
                "internalParameters": identity,
                "resolvedDependencies": list(_made_from(row, build)),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"rillfold": build.release} if build else {}},
                "metadata": {"invocationId": row.run},
            },
        },
    }


def _made_from(row: Adapter, build: Build | None) -> Iterator[dict[str, Any]]:
    yield {"name": "base model", "uri": f"urn:rillfold:base:{row.base_model}", "digest": {"sha256": row.base_sha256}}
    yield {"name": "dataset manifest", "digest": {"sha256": row.manifest}}
    if build is None:
        return
    yield {"name": "code", "uri": f"pkg:pypi/rillfold@{build.release}"}
    for name, sha256 in (
        ("requirements.lock", build.lock_sha256),
        ("installed packages", build.packages_sha256),
        ("chat template", build.template_sha256),
    ):
        if sha256:
            yield {"name": name, "digest": {"sha256": sha256}}


def _identity(row: Adapter) -> dict[str, Any]:
    """An event of another's may hold anything."""
    try:
        return msgspec.json.decode(row.identity, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {}


def _quoted(text: str) -> str:
    return json.dumps(text)


def _plain(text: str) -> str:
    """One line, in which nothing is Markdown or HTML."""
    return "".join(letter if letter.isalnum() or letter in " ._-/@:,+>%()=" else " " for letter in text)[:500].strip()
