"""Our verdicts on calls against those of the Berkeley leaderboard's own checker, case by case: they must be equal.

First on every right answer of the single-turn Python part, then on mutations of them, by a seed that is printed. Ours
shares no line with theirs.
"""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.evaluator.mutations import mutated
from bench.evaluator.official import WHEEL, Case, Official, downloaded, oracle, silent
from bench.harness import Contestant, Figures, Ratio, options, report, take_turns
from processors.measure.berkeley import kind_of, verdict

MUTATIONS = 5_000
SEED = 20_261_126


def ours(case: Case) -> bool:
    return verdict(kind_of(case.category), case.tools, case.output, case.accepted).right


def compared(official: Official, cases: Sequence[Case]) -> tuple[int, list[Case]]:
    """(right by theirs, those on which the verdicts differ). Where their checker broke there is none to differ from."""
    theirs = [(case, official.right(case)) for case in cases]
    wrong = [case for case, right in theirs if right is not None and right is not ours(case)]
    return sum(right is True for _, right in theirs), wrong


def timed(judge: Callable[[Case], bool | None], cases: Sequence[Case]) -> Contestant:
    def judged() -> Figures:
        began = time.process_time()
        for case in cases:
            judge(case)
        return {"verdicts_per_s": len(cases) / (time.process_time() - began)}

    return judged


def main() -> None:
    parser = options(__doc__, mutations=MUTATIONS, seed=SEED)
    parser.add_argument("--wheel", type=Path, help=f"of {WHEEL}, where it was downloaded already")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = given.wheel or downloaded(Path(folder))
        official, right = Official(wheel), oracle(wheel)
        passed, wrong = compared(official, right)
        made = list(mutated(right, given.mutations, given.seed))
        passed_too, wrong_too = compared(official, [case for _, case in made])
        quiet = silent(wheel)
    costs = {
        "oracle outputs": len(right),
        "oracle outputs that pass": passed,
        "oracle outputs: other verdicts": len(wrong),
        f"mutations (seed {given.seed})": len(made),
        "mutations that pass": passed_too,
        "mutations: other verdicts": len(wrong_too),
        "mutations that broke the official checker": sum(official.crashed.values()),
        "abstentions and calls where none fits: other verdicts": quiet["different"],
    }
    for case in [*wrong, *wrong_too][:20]:
        print(f"other verdict, {case.category} {case.id}: {case.output!r:.300} against {case.accepted!r:.300}")
    contestants = {"rillfold verdict": timed(ours, right), "Berkeley ast_checker": timed(official.right, right)}
    ratios = {"checker": Ratio("verdicts_per_s", "rillfold verdict", "Berkeley ast_checker")}
    results, quotients = take_turns("evaluator", contestants, ratios, given.runs)
    kinds = {f"mutations: {name}": {"cases": count} for name, count in Counter(name for name, _ in made).items()}
    report("evaluator", given.runs, results | kinds, quotients, costs)
    sys.exit(1 if wrong or wrong_too or quiet["different"] else 0)


if __name__ == "__main__":
    main()
