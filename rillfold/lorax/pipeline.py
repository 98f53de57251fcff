"""What people call. Whatever waits for the model is awaited; whatever only looks, or must be done before the next line
can be right, is a plain call.

Awaitables may be awaited on any event loop, and on a new one each time, since the engine has a loop of its own: where
there is none, `asyncio.run(pipeline.lorax_inference(...))` is the way.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gpu_workers.serve.port import Failure, Outcome, Question
from rillfold.http.operator import token_file
from rillfold.lorax.agents import AgentsEngine, RoleTally
from rillfold.lorax.config import MLConfig
from rillfold.lorax.errors import LoRAxDisabled, NotAnswered, NotAnsweredNow, UnknownRole
from rillfold.lorax.roles import AdapterInfo
from rillfold.lorax.server import PATIENCE, LoRAxServer, Open, Phase
from rillfold.lorax.wishes import Wish, told, wish_of, wishes_of
from rillfold.settings import Settings

Json = dict[str, Any]


class MLPipelineManager:
    """Agents by role on one model, in this process."""

    def __init__(self, config: MLConfig | None = None, settings: Settings | None = None) -> None:
        self.config = config or MLConfig.from_env()
        self.server = LoRAxServer(self.config.lorax(), settings)
        self._ids = itertools.count(1)

    async def start_lorax_server(self) -> str:
        """Reads the base model and opens /v1; returns its address. Seconds."""
        if not self.config.enable_lorax:
            raise LoRAxDisabled("AOS_ENABLE_LORAX is false here: set it to true, or leave it out.")
        await asyncio.to_thread(self.server.start)
        return self.server.url

    async def stop_lorax_server(self, patience: float = PATIENCE) -> None:
        """What is under way finishes within so many seconds, or fails by name."""
        await asyncio.to_thread(self.server.stop, patience)

    def register_lorax_adapter(self, role: str, path: str | Path) -> AdapterInfo:
        """Gives the role the adapter of a folder that PEFT saved. A role that has one is swapped to the new one.

        Returns when the adapter was read and tried, so it blocks: a tenth of a second. An event loop that must not
        wait calls it by `asyncio.to_thread`.
        """
        info: AdapterInfo = self.server.register(role, path).result()
        return info

    async def lorax_inference(self, agent_role: str, prompt: str, **options: Any) -> Json:
        """The role's answer. Raises `UnknownRole`, `NotAnswered`, or `NotAnsweredNow` where asking again may help."""
        wish = wish_of({"agent_role": agent_role, "prompt": prompt, **options})
        ((outcome, seconds),) = await self._answers([wish])
        if isinstance(outcome, Failure):
            kind = NotAnsweredNow if outcome.again else NotAnswered
            raise kind(wish.agent_role, outcome.reason, outcome.detail)
        return told(wish, outcome, seconds)

    async def lorax_batch_inference(self, requests: Sequence[Mapping[str, Any]]) -> list[Json]:
        """All at once, in one batch of the engine as far as there is room; the answers in the order of the requests.

        A request that is wrong in itself (`WishRefused`), or asks a role that nobody has, raises before any is asked.
        One that gets no answer has an `error` in its place, and the others have their answers.
        """
        wishes = wishes_of(requests)
        outcomes = await self._answers(wishes)
        return [told(wish, *outcome) for wish, outcome in zip(wishes, outcomes, strict=True)]

    def get_lorax_status(self) -> Json:
        """Also of a server that does not run: `running` says so."""
        if self.server.phase is not Phase.RUNNING:
            return {"running": False, "phase": str(self.server.phase)}
        return self.server.call(self._status).result()

    def get_lorax_adapter_stats(self, role: str | None = None) -> Json:
        """By role, or those of one."""
        stats = self.server.call(_adapter_stats).result()
        if role is None:
            return stats
        if role not in stats:
            raise UnknownRole(role, stats)
        found: Json = stats[role]
        return found

    async def _answers(self, wishes: Sequence[Wish]) -> list[tuple[Outcome, float]]:
        questions = [wish.question(f"lorax-{next(self._ids)}") for wish in wishes]

        async def ask(server: Open) -> list[tuple[Outcome, float]]:
            for wish in wishes:
                server.registry.adapter_of(wish.agent_role)
            return await asyncio.gather(*(_timed(server, question) for question in questions))

        return await asyncio.wrap_future(self.server.call(ask))

    async def _status(self, server: Open) -> Json:
        given = self.server.settings
        return {
            "running": True,
            "phase": str(Phase.RUNNING),
            "alive": server.agents.alive(),
            "base_model": server.agents.model,
            "base_sha256": server.agents.base_sha256,
            "url": server.url,
            "key": "RILLFOLD_SERVE_TOKEN" if given.serve_token else str(token_file(given.data_dir)),
            "config": msgspec.structs.asdict(self.server.config),
            "adapters": [msgspec.structs.asdict(info) for info in server.registry.infos()],
            "engine": msgspec.structs.asdict(server.agents.stats()),
            "metrics": _metrics(server.agents),
        }


async def _timed(server: Open, question: Question) -> tuple[Outcome, float]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    return await server.agents.in_turn(question), loop.time() - began


def _metrics(agents: AgentsEngine) -> Json:
    asked = agents.asked.values()
    return {
        "total_requests": sum(each.requests for each in asked) + agents.unknown,
        "total_failures": sum(each.failures for each in asked) + agents.unknown,
        "total_tokens": sum(each.tokens for each in asked),
        "in_flight": agents.under_way,
        "most_running": agents.most_running,
    }


async def _adapter_stats(server: Open) -> Json:
    resident = {each.key: each for each in server.agents.resident()}
    return {
        info.role: _stats(info, server.agents.asked[info.role])
        | {
            "resident": (here := resident.get(server.registry.adapter_of(info.role))) is not None,
            "bytes": here.bytes if here else 0,
            "rank": here.rank if here else None,
        }
        for info in server.registry.infos()
    }


def _stats(info: AdapterInfo, asked: RoleTally) -> Json:
    mean = asked.seconds / asked.requests if asked.requests else None
    return {
        **msgspec.structs.asdict(info),
        **msgspec.structs.asdict(asked),
        "tokens": asked.tokens,
        "mean_latency_ms": None if mean is None else round(mean * 1000, 3),
    }
