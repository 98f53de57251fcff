"""What somebody sees who waits for a run, and what his Ctrl-C does."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from projections.lora_adapters import Adapter
from rillfold.cli.adapters import train as commands
from rillfold.cli.adapters.watch import INTERRUPTED, WATCHED, WIDTH, Watched, figures, leave, shown, spark
from schemas.envelope import Event
from schemas.training import TrainingProgressed
from streams.history.followed import PATIENCE_SECONDS, NobodyTakes
from tests.train.test_shares import ASKED, claim, step


def seen(*events: Event) -> Watched:
    run = WATCHED.initial("acme/r")
    for event in events:
        run = WATCHED.fold(run, event)
    assert isinstance(run, Watched)
    return run


def test_a_run_that_no_worker_takes_is_said_once() -> None:
    times, told = iter([0.0, PATIENCE_SECONDS - 1, PATIENCE_SECONDS + 1, 2 * PATIENCE_SECONDS]), list[str]()
    nobody_takes = NobodyTakes(told.append, lambda: next(times))
    for _ in range(3):
        nobody_takes.look(seen(ASKED))
    assert told == ["No training worker has taken run r yet. Is `rillfold worker train` running?"]
    NobodyTakes(told.append, iter([0.0, 99.0]).__next__).look(seen(ASKED, claim(10, 1, "one")))
    assert len(told) == 1


def test_the_curve_holds_what_was_said_last_of_each_step_and_nothing_of_an_earlier_claim() -> None:
    run = seen(
        ASKED, claim(10, 1, "one"), step(20, 1, 1, 4.0), step(30, 1, 2, 3.0), claim(40, 2, "two"),
        step(50, 2, 2, 2.5), step(51, 1, 3, 9.0), step(60, 2, 3, 2.0),
    )  # fmt: skip
    assert run.losses == ((1, 4.0), (2, 2.5), (3, 2.0))
    assert figures(run) == "loss 2.000"


@pytest.mark.parametrize(
    ("losses", "drawn"), [([], ""), ([1.0], "▁"), ([2.0, 1.0], "█▁"), ([3, 2, 1, 2, 3], "█▄▁▄█"), ([1.0] * 3, "▁▁▁")]
)
def test_a_curve_is_drawn_from_its_lowest_to_its_highest(losses: Sequence[float], drawn: str) -> None:
    assert spark(losses).replace("▅", "▄") == drawn


def test_a_long_curve_keeps_its_width_and_its_shape() -> None:
    drawn = spark([1000 - n for n in range(1000)])
    assert len(drawn) == WIDTH
    assert (drawn[0], drawn[-1]) == ("█", "▁")
    assert list(drawn) == sorted(drawn, reverse=True)


def test_where_no_terminal_is_each_new_line_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    run = seen(ASKED, claim(10, 1, "one"))
    more = TrainingProgressed(
        id="p", company="acme", time=20, correlation="r", run="r", phase="train", step=3, steps=9, loss=1.5,
        held_out_loss=1.75, tokens_per_second=1200.4, seconds_left=30, generation=1,
    )  # fmt: skip
    with shown() as show:
        for each in (run, run, WATCHED.fold(run, more), WATCHED.fold(run, more)):
            show(each)
    assert capsys.readouterr().err.splitlines() == [
        "accepted",
        "train 3/9 loss 1.500, held out 1.750, 1200 tokens/s, 30 s left",
    ]


def test_ctrl_c_says_that_the_run_goes_on_and_how_to_end_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_work: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "in_log", interrupted)
    with pytest.raises(SystemExit) as ends:
        commands._wanted(lambda *_: None)  # type: ignore[arg-type,return-value]
    assert ends.value.code == INTERRUPTED
    assert "nothing was asked for" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        leave([ASKED])
    assert "`rillfold runs cancel r --company acme`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("identity", "rule"),
    [("{}", 2), ('{"settings": {}}', 2), ('{"settings": {"rule": 1}}', 1), ('{"settings": {"rule": 3}}', 3), ("[]", 2)],
)
def test_an_adapter_is_trained_again_by_its_own_rule_and_the_next_version_by_the_newest(
    identity: str, rule: int
) -> None:
    old = Adapter(company="acme", adapter="acme/default", version=1, identity=identity)
    assert commands.rule_of(old) == rule
    again = json.loads(commands._as_it_was('{"steps": 3, "rule": 9}', rule, True))
    assert again == {"steps": 3, "rule": rule}
    assert json.loads(commands._as_it_was('{"steps": 3, "rule": 1}', None, True)) == {"steps": 3}


def test_what_says_when_a_run_ends_is_measured_again() -> None:
    measured = json.loads(commands._as_it_was('{"patience": 2, "measure_every": 5}', 2, False))
    assert "evaluation_rows" not in measured
    assert json.loads(commands._as_it_was("{}", 2, False))["evaluation_rows"] == 0
