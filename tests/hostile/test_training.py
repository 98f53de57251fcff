"""After all that: a company that asks for an adapter gets it, and is answered by it."""

from __future__ import annotations

import pytest

from schemas.training import TrainingCompleted, TrainingFailed, TrainingRefused, TrainingRequested
from streams.log.kafka.log import KafkaLog
from tests.hostile.checks import envelope, said, until
from tests.hostile.conftest import House
from tests.hostile.stage import ACME

SECONDS = 120.0
SETTINGS = '{"steps":1,"batch":1,"micro_batch":1,"rank":4,"evaluation_rows":0}'


@pytest.mark.timeout(600)
async def test_a_company_still_gets_its_adapter(house: House, log: KafkaLog) -> None:
    stage, _ = await house.at_hand()
    wish = TrainingRequested(**envelope(), role="late", base_model=stage.model, settings=SETTINGS)
    look = await said(stage, log, "training-request", [wish])

    async def ended() -> TrainingCompleted | None:
        mine = [event for event in await look() if getattr(event, "run", None) == wish.id]
        wrong = [event for event in mine if isinstance(event, TrainingFailed | TrainingRefused)]
        assert not wrong, wrong
        return next((event for event in mine if isinstance(event, TrainingCompleted)), None)

    await until("acme's adapter", ended, SECONDS)
    turn = {"role": "user", "content": "Hi"}
    async with stage.http("acme") as http:
        asked = {"model": f"{ACME}/late", "messages": [turn], "max_tokens": 2}

        async def answered() -> bool | None:
            return True if (await http.post("/v1/chat/completions", json=asked)).status_code == 200 else None

        await until("an answer of acme's new adapter", answered)
