"""One company asks tenfold: how long the other waits for its first token, against a full batch that both share."""

from collections.abc import Collection
from itertools import count

from bench.harness import Figures, Ratio
from bench.part import Found, Part, beside
from bench.serve.beside import p95
from bench.serve.ours import Ask, make_engine, play, rows_of
from bench.serve.scene import Scene
from gpu_workers.serve.engine.engine import Said

HALF, PROMPT, NEW = 16, 18, 16
MEASURED = 64
"""First tokens of the other company, after its first ones, which all came at once."""
FLOODED, SHARED = "beside a flood of 160", "sharing a full batch"


class Crowd:
    """Two companies, each with so many questions in the engine at any time."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._engine = scene, make_engine(scene.plain.model)

    def waits(self, turn: int, flood: int) -> Figures:
        """Of the company that does not flood."""
        asks = [self._ask("flood", turn, i) for i in range(flood)] + [self._ask("other", turn, i) for i in range(HALF)]
        owners = {i: "flood" if i < flood else "other" for i in range(len(asks))}
        asked, waited, tickets = dict.fromkeys(owners, 0.0), list[float](), count(len(asks))

        def watch(said: Said, now: float) -> None:
            owner = owners[said.ticket]
            if said.ticket in asked and (since := asked.pop(said.ticket)) and owner == "other":
                waited.append(now - since)
            if said.finish is not None and len(waited) < MEASURED:
                ticket = next(tickets)
                owners[ticket], asked[ticket] = owner, now
                self._engine.submit(rows_of([self._ask(owner, turn, ticket)], ticket)[0])
            elif len(waited) >= MEASURED:
                for row in self._engine.rows():
                    self._engine.cancel(row.ticket)

        play(self._engine, asks, watch)
        return {"ttft_p95_cpu_s": p95(waited)}

    def _ask(self, owner: str, *seed: object) -> Ask:
        return Ask(self._scene.prompts(1, PROMPT, owner, *seed)[0], None, NEW, {"owner": owner})


def run(scene: Scene, _: Collection[str]) -> Found:
    crowd = Crowd(scene)
    contestants = {
        FLOODED: lambda turn: crowd.waits(turn, 10 * HALF),
        SHARED: lambda turn: crowd.waits(turn, HALF),
    }
    return beside("serve flood", contestants, {"flood_ttft_p95": Ratio("ttft_p95_cpu_s", FLOODED, SHARED)}, scene)


PARTS = [Part("flood", ("flood_ttft_p95",), run)]
