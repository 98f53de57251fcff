"""What the serving benchmark holds its contestants to, before it says how fast they are."""

from __future__ import annotations

import pytest
import torch

from bench.harness import Quotient
from bench.part import judged, wanted
from bench.serve.batch import PAIRS, PEFT, best
from bench.serve.goals import AT_LEAST, AT_MOST
from bench.serve.run import PARTS
from bench.serve.timed import Ledger

LOGITS = torch.tensor([1.0, 1.00005, 1.2])


def ledger() -> Ledger:
    return Ledger(lambda adapter, tokens: LOGITS)


def test_another_token_ends_the_bench_and_a_tie_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    held = ledger()
    held.hold("first", "turn", [[0, 2], [1, 1]], [[5], [6]], [None, None])
    held.hold("second", "turn", [[1, 0], [1, 1]], [[5], [6]], [None, None])
    assert (held.compared, held.ties) == (8, 1)
    assert "a tie: second: row 0 of turn, token 0" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"third: row 1 of turn, token 1: 2 for 1, 0\.2 of logit apart"):
        held.hold("third", "turn", [[0, 2], [1, 2]], [[5], [6]], [None, None])
    with pytest.raises(SystemExit, match="1 tokens of row 1"):
        held.hold("fourth", "turn", [[0, 2], [1]], [[5], [6]], [None, None])


def test_the_hardest_form_of_a_peer_counts() -> None:
    def against(form: str, ratio: float) -> Quotient:
        return Quotient(ratio, ratio, ratio, "rate", "ours", form)

    forms = {"peft_4 a": against("a", 3.0), "peft_4 b": against("b", 1.5), "flat_32": against("c", 0.9)}
    assert {key: each.peer for key, each in best(forms, PEFT).items()} == {"peft_4": "b", "flat_32": "c"}


def test_parts_are_chosen_by_name_or_by_figure_and_those_of_one_batch_run_once() -> None:
    chosen = wanted(PARTS, ["peft_32", "flat", "ready"])
    assert list(chosen.values()) == [["peft_32", "flat_32", "mixed_over_base"], ["ready_to_first_token_s"]]
    assert len(wanted(PARTS, ())) == len({part.run for part in PARTS})
    with pytest.raises(SystemExit, match=r"No part nothing: take some of alora"):
        wanted(PARTS, ["nothing"])


def test_every_figure_with_something_to_reach_is_measured() -> None:
    keys = {key for part in PARTS for key in part.keys}
    assert (AT_LEAST.keys() | AT_MOST.keys()) <= keys
    assert (PEFT.keys() | PAIRS.keys()) <= keys
    assert list(judged({"peft_1": 1.2, "wrong rows": 1.0}, AT_LEAST, AT_MOST)) == [
        "reached peft_1                          1.200 >= 1.15",
        "MISSED  wrong rows                      1.000 <= 0",
    ]
