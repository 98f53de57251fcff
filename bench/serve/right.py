"""Random requests over adapters of every kind, more than memory holds, while they are swapped, withdrawn and cancelled.

Every answer is held against PEFT's of a model that holds that one adapter; whoever must be refused is, for its reason.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bench.part import Found, Part
from bench.serve import kinds
from bench.serve.ours import tiny_engine
from bench.serve.scene import Scene
from bench.serve.timed import TIE
from bench.serve.truth import ASKED, NEW, Tiny
from gpu_workers.refused import UnusableAdapter
from gpu_workers.serve.port import AdapterKey, AdapterSpec, Answer, InferenceEngine, Outcome, Question, Snippet
from schemas.company import Message

ADAPTERS, CACHE, IN_FLIGHT = 200, 100, 64
SWAP, WITHDRAW, CANCEL = 0.02, 0.01, 0.05
"""Chances of each, for every request."""
STRANGE = 0.06
"""Of asking for an adapter that nobody has, or that is broken."""
BROKEN = "company0/broken"
NOBODY = "company0/nobody"


@dataclass
class World:
    """Which versions of a name may answer now; None: it may be refused. Who asks meanwhile sees every change."""

    specs: dict[AdapterKey, AdapterSpec] = field(default_factory=dict)
    now: dict[str, frozenset[int | None]] = field(default_factory=dict)
    watching: dict[str, list[set[int | None]]] = field(default_factory=lambda: defaultdict(list))

    def change(self, name: str, *now: int | None) -> None:
        self.now[name] = frozenset(now)
        for seen in self.watching[name]:
            seen.update(now)

    @contextmanager
    def seen(self, name: str) -> Iterator[set[int | None]]:
        seen = set(self.now[name])
        self.watching[name].append(seen)
        try:
            yield seen
        finally:
            self.watching[name] = [each for each in self.watching[name] if each is not seen]


class Traffic:
    def __init__(self, tiny: Tiny, engine: InferenceEngine, seed: int) -> None:
        self._tiny, self._engine, self._dice = tiny, engine, Random(seed)
        self._world, self._kinds = World(), dict[str, str]()
        self.counted: Counter[str] = Counter()
        self.left_out: set[str] = set()
        self.wrong: list[str] = []

    async def publish(self, count: int) -> None:
        """A kind that this engine does not serve at all is left out, by its name."""
        for name, kind in kinds.names(count):
            if kind in self.left_out:
                continue
            try:
                await self._put(name, kind, 1)
            except UnusableAdapter:
                self.left_out.add(kind)
        kind = next(iter(kinds.KINDS))
        self._engine.announce(self._tiny.adapter(AdapterKey(BROKEN, 1), kind, 0, whole=False))

    async def _put(self, name: str, kind: str, version: int) -> None:
        spec = self._tiny.adapter(AdapterKey(name, version), kind, hash_of(name, version))
        before = self._world.now.get(name, frozenset())
        self._world.specs[spec.key] = spec
        self._world.change(name, *before, version)
        try:
            await self._engine.load(spec)
        except UnusableAdapter:
            self._world.change(name, *before)
            raise
        self._kinds[name] = kind
        self._world.change(name, version)

    async def run(self, requests: int) -> None:
        line = iter(range(requests))

        async def client() -> None:
            for _ in line:
                await self._change()
                await self._one()

        await asyncio.gather(*(client() for _ in range(IN_FLIGHT)))

    async def _change(self) -> None:
        drawn, name = self._dice.random(), self._dice.choice(list(self._kinds))
        (version, *others) = self._world.now[name]
        if others:  # somebody is at it
            return
        newest = max(key.version for key in self._world.specs if key.name == name)
        if version is None or drawn < SWAP:
            self.counted["published again" if version is None else "swapped"] += 1
            await self._put(name, self._kinds[name], newest + 1)
        elif drawn < SWAP + WITHDRAW:
            self.counted["withdrawn"] += 1
            self._world.change(name, version, None)
            await self._engine.unload(name)
            self._world.change(name, None)

    async def _one(self) -> None:
        drawn, text = self._dice.random(), self._dice.choice(ASKED)
        if drawn < STRANGE:
            name, reason = self._dice.choice([(BROKEN, "unusable_adapter"), (NOBODY, "unknown_adapter")])
            outcome = await self._engine.answer(_question(text, name))
            self._hold_refused(name, outcome, reason)
        elif drawn < 2 * STRANGE:
            self._hold(None, text, await self._answer(_question(text, None)))
        else:
            await self._of_a_name(self._dice.choice(list(self._kinds)), text, cancels=drawn > 1 - CANCEL)

    async def _of_a_name(self, name: str, text: str, cancels: bool) -> None:
        with self._world.seen(name) as seen:
            asked = asyncio.ensure_future(self._answer(_question(text, name)))
            if cancels:
                await asyncio.sleep(self._dice.random() / 20)
                asked.cancel()
            await asyncio.wait([asked])
        if asked.cancelled():
            self.counted["cancelled"] += 1
        elif not isinstance(outcome := asked.result(), Answer) and None in seen:
            self._hold_refused(name, outcome, "unknown_adapter")
        elif not isinstance(outcome, Answer) or outcome.adapter not in {AdapterKey(name, v) for v in seen if v}:
            self.wrong.append(f"{name} of {seen}: {outcome}")
        else:
            self._hold(self._world.specs[outcome.adapter], text, outcome)

    async def _answer(self, question: Question) -> Outcome:
        pieces: list[str] = []

        def hear(piece: Snippet) -> None:
            pieces.append(piece.text)

        outcome = await self._engine.answer(question, hear)
        if isinstance(outcome, Answer) and "".join(pieces) != outcome.text:
            self.wrong.append(f"{question.adapter}: the pieces say {pieces}, not {outcome.text!r}")
        return outcome

    def _hold(self, spec: AdapterSpec | None, text: str, outcome: Outcome) -> None:
        truth, said = self._tiny.of(spec, text), outcome.text if isinstance(outcome, Answer) else str(outcome)
        self.counted["held against PEFT"] += 1
        if said != truth.text and truth.margin < TIE:
            self.counted["ties"] += 1
        elif said != truth.text:
            self.wrong.append(f"{spec.key if spec else 'base'}: {said!r}, not {truth.text!r}")

    def _hold_refused(self, name: str, outcome: Outcome, reason: str) -> None:
        self.counted["refused"] += 1
        if isinstance(outcome, Answer) or outcome.reason != reason:
            self.wrong.append(f"{name} was not refused as {reason}: {outcome}")


def _question(text: str, name: str | None) -> Question:
    return Question(id=text, messages=(Message(role="user", content=text),), adapter=name, max_tokens=NEW)


def hash_of(name: str, version: int) -> int:
    """A seed of its own for every version, the same in every run."""
    return Random(f"{name}@{version}").randrange(1 << 40)


async def traffic(root: Path, requests: int, adapters: int = ADAPTERS, cache: int = CACHE, seed: int = 0) -> Traffic:
    """The whole story; its `wrong` must be empty."""
    tiny = Tiny(root)
    async with tiny_engine(tiny.base, tiny.cache, cache) as engine:
        made = Traffic(tiny, engine, seed)
        await made.publish(adapters)
        await made.run(requests)
        made.counted["evicted"] = engine.stats().evictions
        if engine.stats().running + engine.stats().waiting or any(each.in_use for each in engine.resident()):
            made.wrong.append("somebody is still in the engine, or holds an adapter")
    return made


def run(scene: Scene, _: Collection[str]) -> Found:
    made = asyncio.run(traffic(scene.root / "right", scene.requests))
    for line in made.wrong[:20]:
        print(f"wrong: {line}")
    counted = {f"right: {what}": float(count) for what, count in made.counted.items()}
    left_out = {f"right: left out: {kind}": 1.0 for kind in made.left_out}
    return Found({}, {}, {"wrong rows": len(made.wrong), "right: requests": scene.requests} | counted | left_out)


PARTS = [Part("right", ("wrong rows",), run)]
