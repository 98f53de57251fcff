"""What can go wrong between us and a tracker of experiments. Nothing of it is a training's."""

from schemas.errors import Poison, Retry


class MlflowAway(Retry):
    """MLflow does not answer, does not let us in, or what answers there is none."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"MLflow at {url} {why}. Is it up, and are RILLFOLD_MLFLOW_URL and MLFLOW_TRACKING_TOKEN (or "
            f"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD) right? Runs are noted once it answers."
        )


class MlflowFails(MlflowAway):
    """It fails at what it was asked: by a fault of its own, or by what it was asked."""


class MlflowRefused(Poison):
    """MLflow does not take what is noted of one run."""

    def __init__(self, url: str, code: str, detail: str) -> None:
        super().__init__(
            f"MLflow at {url} refuses: {code}: {detail:.500}. The run stands in the log as before; what was refused "
            f"is noted no more."
        )
        self.code = code
