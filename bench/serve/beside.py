"""A prompt of 4,000 tokens beside 31 rows that decode: what it costs them, and what they cost it."""

from collections.abc import Collection, Iterable
from itertools import pairwise
from statistics import quantiles

from bench.harness import Figures, Ratio
from bench.part import Found, Part, beside
from bench.serve.ours import Ask, Played, make_engine, play, rows_of
from bench.serve.scene import Scene
from gpu_workers.serve.engine.engine import Engine, Said

LONG, SHORT, DECODING, LIMIT = 4_000, 18, 31, 400
SETTLED, QUIET = 4, 24
"""Tokens that every row has said before the clock counts, and then while it watches them alone."""
ALONE, BESIDE, WITHOUT = "a prompt of 4,000 alone", "31 rows and a prompt of 4,000", "31 rows alone"


class Stage:
    def __init__(self, scene: Scene) -> None:
        self._scene, self._engine = scene, make_engine(scene.plain.model)

    def alone(self, turn: int) -> Figures:
        return {"ttft_cpu_s": play(self._engine, [self._long(turn, "alone")]).first()}

    def without(self, turn: int) -> Figures:
        def watch(said: Said, _: float) -> None:
            counted[said.ticket] += 1
            if min(counted) == SETTLED + QUIET:
                clear(self._engine)

        counted = [0] * DECODING
        played = play(self._engine, self._short(turn, "without"), watch)
        return {"gap_p95_cpu_s": p95(gaps(played, settled(played)))}

    def beside(self, turn: int) -> Figures:
        """The long prompt comes when the others have settled; theirs that follows its first token is the last."""

        def watch(said: Said, now: float) -> None:
            if said.ticket == DECODING:
                answered.append(now)
                return
            counted[said.ticket] += 1
            if min(counted) == SETTLED and not asked:
                self._engine.submit(rows_of([self._long(turn, "beside")], DECODING)[0])
                asked.append(now)
            if answered and now > answered[0]:
                clear(self._engine)

        counted, asked, answered = [0] * DECODING, list[float](), list[float]()
        played = play(self._engine, self._short(turn, "beside"), watch)
        return {"gap_p95_cpu_s": p95(gaps(played, asked[0])), "ttft_cpu_s": played.first(DECODING) - asked[0]}

    def _long(self, *seed: object) -> Ask:
        return Ask(self._scene.prompts(1, LONG, *seed)[0], None, 1)

    def _short(self, *seed: object) -> list[Ask]:
        return [Ask(prompt, None, LIMIT) for prompt in self._scene.prompts(DECODING, SHORT, *seed)]


def clear(engine: Engine) -> None:
    for ticket in range(DECODING):
        engine.cancel(ticket)


def settled(played: Played) -> float:
    return max(played.heard[ticket][SETTLED - 1] for ticket in range(DECODING))


def gaps(played: Played, since: float) -> list[float]:
    """Between two tokens of a row, of the second of which came later than that."""
    rows = [played.heard[ticket] for ticket in range(DECODING)]
    return [after - before for row in rows for before, after in pairwise(row) if after > since]


def p95(values: Iterable[float]) -> float:
    return quantiles(values, n=20)[-1]


def run(scene: Scene, keys: Collection[str]) -> Found:
    stage = Stage(scene)
    ratios = {
        "prefill_beside_gap_p95": Ratio("gap_p95_cpu_s", BESIDE, WITHOUT),
        "prefill_beside_ttft": Ratio("ttft_cpu_s", BESIDE, ALONE),
    }
    contestants = {ALONE: stage.alone, BESIDE: stage.beside, WITHOUT: stage.without}
    return beside("serve beside", contestants, {key: ratios[key] for key in keys}, scene)


PARTS = [Part("prefill", ("prefill_beside_gap_p95", "prefill_beside_ttft"), run)]
