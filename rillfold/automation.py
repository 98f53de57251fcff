"""Company automation from Python: awaitables over the HTTP API.

automation = await get_automation_service()
await automation.register_company_tools(company_id="acme_corp", tools=[...])
await automation.train_company_adapter(company_id="acme_corp", training_data=[...])
result = await automation.process_company_data(company_id="acme_corp", data={"task": "..."}, use_adapter=True)
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from projections.training_runs import ENDED
from rillfold.client import Client
from rillfold.http.keys import ApiKeys
from rillfold.profiles import way_to_api
from rillfold.settings import Settings, from_env
from schemas.errors import Stop

Json = dict[str, Any]
JOB_SECONDS = 300.0
CANCEL_SECONDS = 10.0
LOOK_SECONDS = 0.5


class AutomationService:
    """Works through a client; `async with`, or `close()`, lets go of its connections."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.client.__aexit__()

    async def register_company_tools(self, company_id: str, tools: Sequence[Mapping[str, Any]]) -> Json:
        """Credentials go to the secret store; everything else becomes events."""
        return await self.client.register_tools(company_id, tools)

    async def train_company_adapter(
        self, company_id: str, training_data: Sequence[Any] = (), *, wait: float = 0, **more: Any
    ) -> Json:
        """Starts a run; with `wait`, returns its row of `training_runs` as soon as it ends."""
        started = await self.client.train(company_id, training_data, **more)
        until = time.monotonic() + wait
        while time.monotonic() < until:
            run = await self.client.found("training_runs", f"{company_id}/{started['run']}")
            if run is not None and run["status"] in ENDED:
                return started | run
            await asyncio.sleep(LOOK_SECONDS)
        return started

    async def process_company_data(
        self,
        company_id: str,
        data: Mapping[str, Any],
        use_adapter: bool = True,
        *,
        wait: float = JOB_SECONDS,
        **more: Any,
    ) -> Json:
        """Runs a job and returns how it stands: completed with its answer, failed with its reason, or still running."""
        return await self.client.process(company_id, data, wait, use_adapter=use_adapter, **more)

    async def cancel_company_job(
        self, company_id: str, job: str, reason: str = "", *, wait: float = CANCEL_SECONDS
    ) -> Json:
        """Takes a job back and returns how it stands; `ApiRefused` where there is none, or it has ended otherwise."""
        return await self.client.cancel_job(company_id, job, reason, wait)


async def get_automation_service(settings: Settings | None = None) -> AutomationService:
    """By RILLFOLD_PROFILE, or RILLFOLD_API_URL and RILLFOLD_API_KEY; else the API of this machine's data folder."""
    return AutomationService(api_client(settings or from_env()))


def api_client(settings: Settings) -> Client:
    way = way_to_api(settings)
    key = (way.key or _own_key(settings)).strip()
    if not key.isascii() or not key.isprintable():
        which = f"The key of profile {settings.profile!r}" if settings.profile else "RILLFOLD_API_KEY"
        raise Stop(f"{which} is no API key: those are letters, digits and signs in one line. Copy it again.")
    return Client(way.url, key)


def _own_key(settings: Settings) -> str:
    path = ApiKeys.of(settings.data_dir).admin_key_file
    try:
        return path.read_text()
    except FileNotFoundError:
        raise Stop(f"No API key: set RILLFOLD_API_KEY, or run `rillfold up`, which makes {path}.") from None
