"""A fine-tuning job as OpenAI's clients ask for it, and as they read it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rillfold.http.forms import Strict

Auto = Literal["auto"]
Whole = Annotated[int, Field(ge=1)]
Word = Annotated[str, Field(max_length=200)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Hyperparameters(Strict):
    """auto: as it is standard here."""

    n_epochs: Whole | Auto = "auto"
    batch_size: Whole | Auto = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Auto = "auto"


class DpoHyperparameters(Hyperparameters):
    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Auto = "auto"


class SupervisedMethod(Strict):
    hyperparameters: Hyperparameters = Hyperparameters()


class DpoMethod(Strict):
    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class TuningMethod(Strict):
    type: Literal["supervised", "dpo"]
    supervised: SupervisedMethod | None = None
    dpo: DpoMethod | None = None


class NewTuning(Strict):
    model: Word
    """A base model of the operator's list."""
    training_file: Word
    validation_file: Word | None = None
    """Its questions are measured on; without it, a fifth of the training file's are."""
    suffix: Annotated[str, Field(max_length=64)] | None = None
    """Names the role of the adapter: a job with the same suffix makes its next version."""
    seed: Seed | None = None
    method: TuningMethod | None = None
    hyperparameters: Hyperparameters | None = None
    """As older clients send them; in `method` they are the same."""
    integrations: Annotated[list[Any], Field(max_length=0, fail_fast=True)] | None = None
    metadata: dict[str, Any] | None = Field(None, max_length=0)
    settings: dict[str, Any] = Field(default={})
    """More of a run's settings, as docs/training.md names them, such as rank."""


class TuningJob(BaseModel):
    """As OpenAI's clients read it; and the hashes of the dataset and of the adapter."""

    model_config = ConfigDict(extra="allow")
    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    model: str
    fine_tuned_model: str | None
    training_file: str
    dataset_sha256: str | None
    adapter_sha256: str | None


class TuningPage(BaseModel):
    """Of jobs, of events or of checkpoints, the newest first."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False

    @classmethod
    def of(cls, found: list[dict[str, Any]], limit: int) -> "TuningPage":
        """`found`: one more than is told, where there is one."""
        data = found[:limit]
        ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return cls(data=data, first_id=ends[0], last_id=ends[1], has_more=len(found) > limit)
