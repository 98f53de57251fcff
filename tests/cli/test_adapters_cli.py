"""Deciding by hand which version answers: events with a reason, and nothing of a version that there is not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from processors.training.promotion import GateFloors, judge
from processors.training.said import judged
from rillfold.cli.adapters.versions import NoSuchVersion, adapters
from rillfold.embedded.state import Endpoints
from schemas.adapters import AdapterReady, Evaluation
from schemas.topics import BY_NAME, TopicNames
from schemas.training import TrainingRequested
from streams.log.kafka.admin import wanted
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from tests.support.worker import external


def ready(version: int, promoted: bool, adapter: str = "acme/default") -> AdapterReady:
    id_, company = f"{adapter}-{version}", adapter.partition("/")[0]
    return AdapterReady(
        id=id_, company=company, time=1_700_000_000_000_000, correlation=id_, adapter=adapter, adapter_version=version,
        run="r", sha256="0" * 64, uri="file:///a", method="lora", rank=8, alpha=16.0, base_model="tiny",
        base_sha256="0" * 64, manifest="m", ranges=(), seed=0, identity="{}", promoted=promoted,
        evaluation=Evaluation(examples=9, before=0.25, after=0.75),
    )  # fmt: skip


async def test_a_version_is_promoted_and_withdrawn_by_hand_with_the_reason(
    stack: Endpoints, kafka: KafkaLog, names: TopicNames, tmp_path: Path
) -> None:
    environment = external(stack.bootstrap_servers, names.prefix, tmp_path)

    async def command(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner(catch_exceptions=False).invoke, adapters, arguments, env=environment)

    await kafka.create(wanted(names, [BY_NAME["adapter-ready"]]))
    asked = TrainingRequested(id="r", company="acme", time=1, correlation="r", base_model="tiny")
    verdict = judged(asked, 2, 1, judge(None, GateFloors(), None), 1)
    events = [ready(1, True), verdict, ready(2, False), ready(1, True, "globex/default")]
    await kafka.append([to_outgoing(event, names) for event in events])

    said = await command("promote", "acme/default@2", "--reason", "  people like it  ", "--json")
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout) == {"adapter": "acme/default", "answers": 2, "withdrawn": []}
    listed = json.loads((await command("list", "acme", "--json")).stdout)
    assert [(each["version"], each["now"], each["decided"]) for each in listed] == [
        (1, "promoted before", ""),
        (2, "answers", "100 %: people like it"),
    ]
    assert (listed[1]["promoted"], listed[1]["verdict"]) == (False, "not_measured")

    gone = await command("withdraw", "acme/default@2", "--reason", "people do not")
    assert gone.exit_code == 0, gone.output
    assert "answers    version 1" in gone.stdout and "withdrawn  2" in gone.stdout
    table = " ".join((await command("list", "acme")).stdout.split())
    assert "acme/default@2" in table and "0 %: people do not" in table and "globex" not in table

    none = await command("list", "nobody")
    assert (none.exit_code, none.stdout) == (0, "") and "rillfold train --company nobody" in none.stderr
    assert json.loads((await command("list", "nobody", "--json")).stdout) == []

    before = await kafka.ends(names.wire("adapter-ready"))
    with pytest.raises(NoSuchVersion, match="acme/default@1, acme/default@2") as unknown:
        await command("withdraw", "acme/default@3", "--reason", "x")
    assert "globex" not in str(unknown.value)
    assert await kafka.ends(names.wire("adapter-ready")) == before, "nothing was said"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["promote", "acme/default@1"], "--reason"),
        (["promote", "acme/default@1", "--reason", " "], "--reason is empty"),
        (["withdraw", "acme/default", "--reason", "x"], "COMPANY/ROLE@N"),
        (["withdraw", "acme/default@x", "--reason", "x"], "COMPANY/ROLE@N"),
    ],
)
def test_what_is_missing_is_asked_for(given: list[str], told: str) -> None:
    done = CliRunner().invoke(adapters, given)
    assert done.exit_code == 2 and told in done.output
