"""Part 5: a job as a saga. The bridge is killed while the company's API is answering, and one effect remains."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from rillfold.automation import AutomationService
from rillfold.client import Client
from rillfold.demo import data
from rillfold.demo.data import ACME, GLOBEX
from rillfold.demo.stage import NotAsTold, Stage


async def tell(stage: Stage) -> None:
    await _killed_in_the_middle(stage)
    await _by_python(stage)
    stage.console.print(await stage.rillfold("trace", stage.job, "--company", ACME.id))


async def _killed_in_the_middle(stage: Stage) -> None:
    request = data.held_out(ACME, 2)[1]
    stage.say(f"POST /company-automation/process: {request.text!r}")
    before = stage.tools.requests
    stage.tools.hold.clear()
    async with Client(stage.urls["api"], stage.keys[ACME.id]) as client:
        job = await client.process(ACME.id, {"task": request.text})
        stage.job = job["job"]
        with stage.narrator.live("waiting for the tool call"):
            await stage.until("the tool call", lambda: _knocked(stage, before))
        stage.crew.kill("bridge")
        stage.say("killed the bridge with -9 while the company's API was at work")
        stage.tools.hold.set()
        with stage.narrator.live("the next bridge takes over"):
            await asyncio.to_thread(stage.crew.restart, "bridge")
            ended = await client.job(ACME.id, stage.job, wait=120)
    _completed(ended)
    effects = [effect for effect in stage.tools.effects if effect.company == ACME.id]
    stage.expect(
        stage.tools.requests - before >= 2, "the bridge called again after it was killed, with the same idempotency key"
    )
    stage.expect(len(effects) == 1, "the company's books show one effect")
    wanted = json.loads(request.call.arguments)
    stage.expect(
        (effects[0].tool, effects[0].arguments) == (request.call.name, wanted),
        f"{effects[0].tool} got {request.call.arguments} and the right token",
    )
    stage.say(f"answer: {ended['answer']!r}")


async def _knocked(stage: Stage, before: int) -> bool:
    return stage.tools.requests > before


async def _by_python(stage: Stage) -> None:
    request = data.held_out(GLOBEX, 4)[3]
    automation = AutomationService(Client(stage.urls["api"], stage.keys[GLOBEX.id]))
    async with automation:
        with stage.narrator.live("a job of globex"):
            result = await automation.process_company_data(GLOBEX.id, {"task": request.text}, use_adapter=True)
    _completed(result)
    stage.expect(bool(result["answer"]), f"await process_company_data(…): {result['answer']!r}")


def _completed(job: Mapping[str, Any]) -> None:
    if job["status"] != "completed":
        raise NotAsTold(f"job {job['job']} is {job['status']}: {job.get('reason')} {job.get('detail')}")
