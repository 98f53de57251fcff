"""AdaLoRA's schedule, and settings that do not go together: all refused before anything is read."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.dataset.selection import Selection
from processors.training.admit import plain_settings
from processors.training.agree import disagreement
from processors.training.schedule import NoSchedule, RankSchedule, rank_schedule
from processors.training.settings import METHOD_NAMES, MOST_RANK, TrainSettings
from schemas.training import TrainingRequested

RANKS = st.integers(1, MOST_RANK)


@given(steps=st.integers(1, 5000), rank=RANKS, target=st.integers(0, MOST_RANK))
def test_a_schedule_runs_or_is_refused_with_one_that_does(steps: int, rank: int, target: int):
    settings = TrainSettings(steps=steps, rank=rank, target_rank=target)
    plan = rank_schedule(settings, steps)
    for _ in range(2):
        if isinstance(plan, RankSchedule):
            break
        found = re.search(r"Set (\w+)=(\d+)", plan.detail)
        assert found, plan.detail
        settings = msgspec.structs.replace(settings, **{found[1]: int(found[2])})
        plan = rank_schedule(settings, settings.steps)
    assert isinstance(plan, RankSchedule)
    assert 0 < plan.target_rank < plan.first_rank <= MOST_RANK
    assert 0 < plan.warm < plan.last_cut < plan.steps
    assert plan.every > 0


def test_a_target_over_the_first_rank_raises_the_first():
    plan = rank_schedule(TrainSettings(rank=4, target_rank=16), 24)
    assert isinstance(plan, RankSchedule) and (plan.first_rank, plan.target_rank) == (24, 16)
    assert isinstance(rank_schedule(TrainSettings(rank=1), 24), RankSchedule)


def test_the_nearest_that_works_is_named():
    assert isinstance(few := rank_schedule(TrainSettings(), 2), NoSchedule) and "Set steps=3." in few.detail
    assert isinstance(none := rank_schedule(TrainSettings(target_rank=64), 9), NoSchedule)
    assert "Set target_rank=63" in none.detail


@pytest.mark.parametrize(
    ("reason", "method", "settings"),
    [
        ("bad_schedule", "adalora", TrainSettings(steps=2)),
        ("bad_schedule", "adalora", TrainSettings(target_rank=64)),
        ("bad_settings", "lora", TrainSettings(target_rank=4)),
        ("bad_settings", "lora", TrainSettings(patience=1)),
        ("bad_settings", "lora", TrainSettings(measure_every=1, evaluation_rows=0)),
        ("bad_settings", "lora", TrainSettings(objective="dpo", rule=2)),
        ("bad_settings", "lora", TrainSettings(tools="in-prompt", rule=2)),
        ("bad_settings", "lora", TrainSettings(select=Selection(agents=("desk",)), rule=2)),
    ],
)
def test_what_does_not_go_together_is_refused(reason: str, method: str, settings: TrainSettings):
    wrong = disagreement(method, settings)
    assert wrong is not None and wrong.reason == reason
    assert "Set " in wrong.detail or "leave it out" in wrong.detail


def test_what_goes_together_is_not():
    assert disagreement("adalora", TrainSettings(target_rank=20, patience=2, measure_every=3)) is None
    assert disagreement("adalora", TrainSettings(steps=1, epochs=3)) is None


@pytest.mark.parametrize(
    ("method", "said", "alpha", "steps"),
    [
        *(("lora", "{}", 32, 24), ("adalora", "{}", 512, 40)),
        *(("adalora", '{"alpha": 8}', 8, 40), ("adalora", '{"steps": 90, "rank": 4}', 512, 90)),
    ],
)
def test_a_method_has_what_it_needs_where_nobody_says_otherwise(
    method: str, said: str, alpha: float, steps: int
) -> None:
    request = TrainingRequested(
        id="r", company="acme", time=1, correlation="c", role="desk", method=method, base_model="b", settings=said
    )
    settings = plain_settings(request, METHOD_NAMES)
    assert isinstance(settings, TrainSettings)
    assert (settings.alpha, settings.steps) == (alpha, steps)
