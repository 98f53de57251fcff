"""What a measurement comes to, as its files and its readers have it."""

from gpu_workers.evaluate.judge import Ask, judge, pairs
from gpu_workers.evaluate.measure import Measured, judged
from gpu_workers.evaluate.written import Metrics, WrongAnswer, figures
from processors.errors import ModelAway


def metrics(measured: Measured, judge_said: str | None = None) -> Metrics:
    return Metrics(
        against=measured.served.version,
        suites=figures(measured.measures),
        quality=measured.quality(measured.candidate),
        served_quality=measured.quality(measured.served),
        judge=judge_said,
    )


def wrong_answers(measured: Measured) -> list[WrongAnswer]:
    """Of the candidate, with the class of each mistake."""
    return [
        WrongAnswer(
            id=each.case.id,
            suite=each.case.suite,
            prompt=each.case.prompt,
            expected=each.case.right,
            predicted=each.text,
            mistake=mistake,
            detail=each.fell,
        )
        for each in measured.of(measured.candidate)
        if (mistake := judged(each).mistake) is not None
    ]


def asked_judge(measured: Measured, ask: Ask) -> str:
    """In words. A judge that is away costs this line and nothing else."""
    answers = pairs(measured)
    try:
        found = judge(ask, answers)
    except ModelAway as error:
        return f"left out: {error}"
    return (
        f"of {len(answers)} answers that differ, the candidate's was better {found.candidate} times, the other's "
        f"{found.served}, neither {found.neither}; {found.inconsistent} verdicts turned with the order and do not count"
    )
