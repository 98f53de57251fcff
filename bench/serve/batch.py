"""Batches of 32 rows with 0, 1, 4, 16 or 32 distinct adapters: our engine against PEFT, transformers and llama.cpp.

Same process, base weights, float32, prompts and lengths; greedy; nobody stops early, so the lack of continuous batching
costs nobody anything here. One thread and its processor time, so that a busy machine weighs little. Every token that
anybody says is compared.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property, partial
from typing import NamedTuple

from bench.harness import Figures, Quotient, Ratio
from bench.part import Found, Part, beside
from bench.serve.llamacpp_peer import LlamaCpp
from bench.serve.ours import Ours
from bench.serve.scene import Scene
from bench.serve.timed import TIE, Ledger, Timed
from bench.serve.transformers_peer import Peft, Plain, reference

ROWS, PROMPT, NEW, WARM = 32, 18, 48, 6
DISTINCT = (1, 4, 16, 32)
RATE = "tokens/cpu-s"
OTHER_ARITHMETIC = 1e-2
"""Of logit: llama.cpp's kernels, and a merged weight, round otherwise; two tokens this near are a tie for them."""


class Entry(NamedTuple):
    """A contestant: which of the peers, which of its forms, with how many adapters, and what is a tie for it."""

    peer: str
    form: str
    distinct: int
    tie: float = TIE


def of(who: str, peer: str, form: str, distinct: Iterable[int], tie: float = TIE) -> dict[str, Entry]:
    return {
        f"{who}, {each or 'no'} adapter{'' if each == 1 else 's'}": Entry(peer, form, each, tie) for each in distinct
    }


OURS = of("ours", "ours", "said", (0, *DISTINCT))
MIXED = of("PEFT adapter_names", "peft", "mixed", DISTINCT)
SORTED = of("PEFT set_adapter", "peft", "one_by_one", DISTINCT)
MERGED = of("PEFT merged", "peft", "merged", (1,), OTHER_ARITHMETIC)
GENERATE = of("transformers generate", "plain", "generated", (0,))
BATCHED = of("transformers continuous batching", "plain", "batched", (0,))
LLAMA = of("llama.cpp", "llama", "said", (0, 1, ROWS), OTHER_ARITHMETIC)
ENTRIES = OURS | MIXED | SORTED | MERGED | GENERATE | BATCHED | LLAMA
SLOW = MIXED | SORTED | MERGED | LLAMA


def pair(ours: int, peer: Mapping[str, Entry], distinct: int) -> tuple[str, str]:
    return named(OURS, ours), named(peer, distinct)


def named(entries: Mapping[str, Entry], distinct: int) -> str:
    return next(who for who, entry in entries.items() if entry.distinct == distinct)


PEFT = {f"peft_{each}": (named(OURS, each), named(MIXED, each), named(SORTED, each)) for each in DISTINCT}
"""Ours, and PEFT in the two forms that any adapters can have: the better one counts."""
PAIRS = {
    "peft_merged": pair(1, MERGED, 1),
    "flat_32": pair(32, OURS, 1),
    "mixed_over_base": pair(32, OURS, 0),
    "base_over_generate": pair(0, GENERATE, 0),
    "base_over_batching": pair(0, BATCHED, 0),
    "llamacpp_32": pair(32, LLAMA, 32),
    "llamacpp_1": pair(1, LLAMA, 1),
    "llamacpp_base": pair(0, LLAMA, 0),
}


class Contest:
    """All that may run; each is made when it is first wanted."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.folders = scene, scene.adapters(ROWS)
        self.ledger = Ledger(partial(reference, scene, self.folders))

    @cached_property
    def ours(self) -> Ours:
        return Ours(self.scene, self.folders, ROWS)

    @cached_property
    def peft(self) -> Peft:
        return Peft(self.scene, self.folders)

    @cached_property
    def plain(self) -> Plain:
        return Plain(self.scene)

    @cached_property
    def llama(self) -> LlamaCpp:
        return LlamaCpp(self.scene, self.folders, ROWS)

    def contestant(self, who: str) -> Callable[[int], Figures]:
        """Warm, and right in a few tokens, before it may run."""
        self._said(who, "warm", WARM)
        return lambda turn: {RATE: ROWS * NEW / self._said(who, turn, NEW)}

    def _said(self, who: str, turn: object, new: int) -> float:
        """Seconds that it took; all that it said is held against the others."""
        entry = ENTRIES[who]
        prompts = self.scene.prompts(ROWS, PROMPT, turn, entry.distinct)
        adapters = [row % entry.distinct if entry.distinct else None for row in range(ROWS)]
        timed: Timed = getattr(getattr(self, entry.peer), entry.form)(prompts, adapters, new)
        self.ledger.hold(who, (turn, entry.distinct), timed.said, prompts, adapters, entry.tie)
        return timed.seconds


def run(scene: Scene, keys: Collection[str]) -> Found:
    """One turn has all that the wanted figures need, ours once for all of them."""
    contest = Contest(scene)
    peft = {key: names for key, names in PEFT.items() if key in keys}
    pairs = {key: names for key, names in PAIRS.items() if key in keys}
    ratios = {key: Ratio(RATE, *names) for key, names in pairs.items()}
    for key, (ours, *forms) in peft.items():
        ratios |= {f"{key} {form}": Ratio(RATE, ours, form) for form in forms}
    needed = {who for names in (*peft.values(), *pairs.values()) for who in names}
    contestants = {who: contest.contestant(who) for who in ENTRIES if who in needed}
    found = beside("serve batch", contestants, ratios, scene, needed & SLOW.keys())
    costs = {"tokens compared": contest.ledger.compared, "ties among them": contest.ledger.ties}
    return Found(found.results, best(found.ratios, PEFT), costs)


def best(ratios: Mapping[str, Quotient], forms: Collection[str]) -> dict[str, Quotient]:
    """Of a peer's forms the one that is hardest to beat."""
    kept: dict[str, Quotient] = {}
    for key, each in ratios.items():
        short = key.partition(" ")[0] if key.partition(" ")[0] in forms else key
        if short not in kept or each.ratio < kept[short].ratio:
            kept[short] = each
    return kept


PARTS = [
    Part("peft", (*PEFT, "peft_merged"), run),
    Part("flat", ("flat_32", "mixed_over_base"), run),
    Part("generate", ("base_over_generate",), run),
    Part("batching", ("base_over_batching",), run),
    Part("llamacpp", ("llamacpp_32", "llamacpp_1", "llamacpp_base"), run),
]
