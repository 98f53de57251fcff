"""Files, jobs and their events as OpenAI's clients read them."""

from collections.abc import Iterable
from typing import Any

from processors.tuning.names import FILE_BYTES, NAME_BYTES, TunedModel
from processors.tuning.wishes import PLAIN_ROLE, Tuning
from projections.training_runs import ENDED, Run
from projections.tuning.files import UploadedFile
from schemas import training
from schemas.envelope import Event

SECOND = 1_000_000
FILE_TOPIC = "company-data"
TAKEN_BACK = "withdrawn"
EVENT_PREFIX = "ftevent-"
HYPERPARAMETERS = ("n_epochs", "batch_size", "learning_rate_multiplier")


def is_file(file: UploadedFile) -> bool:
    """Whether it is one as this door writes them: anybody with the company's key may say `file.uploaded`, and any size,
    place and name in it."""
    if not file.created_at or not 0 < file.size <= FILE_BYTES or len(file.name.encode()) > NAME_BYTES:
        return False
    return len(file.ranges) == 1 and file.ranges[0].topic == FILE_TOPIC


def file_told(file: UploadedFile, processed: bool = True) -> dict[str, Any]:
    """`processed`: those who ask for it by its name find it."""
    return {
        "id": file.file,
        "object": "file",
        "bytes": file.size,
        "created_at": file.created_at // SECOND,
        "expires_at": None,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed" if processed else "uploaded",
        "status_details": None,
        "sha256": file.sha256,
        "lines": file.lines,
        "method": file.method,
    }


def status_of(run: Run) -> str:
    """One that waits and was taken back will not begin; one that trains is told as it ends."""
    if run.status == "completed":
        return "succeeded"
    if run.status in ENDED:
        return "cancelled" if run.reason == TAKEN_BACK else "failed"
    if run.status == "accepted":
        return "running"
    return "queued" if run.withdrawn is None else "cancelled"


def job_told(run: Run, tuning: Tuning, model: TunedModel | None) -> dict[str, Any]:
    ended = run.status in ENDED
    hyper = {name: getattr(tuning, name) for name in HYPERPARAMETERS}
    of_method = hyper | ({"beta": tuning.beta} if tuning.method == "dpo" else {})
    left = None if ended or run.seconds_left is None else (run.updated_at // SECOND) + int(run.seconds_left)
    return {
        "id": run.run,
        "object": "fine_tuning.job",
        "created_at": run.requested_at // SECOND,
        "finished_at": run.updated_at // SECOND if ended else None,
        "estimated_finish": left,
        "status": (status := status_of(run)),
        "model": run.base_model,
        "fine_tuned_model": str(model) if model else None,
        "organization_id": run.company,
        "training_file": tuning.training_file,
        "validation_file": tuning.validation_file,
        "result_files": [],
        "trained_tokens": None,
        "hyperparameters": hyper,
        "method": {"type": tuning.method, tuning.method: {"hyperparameters": of_method}},
        "seed": tuning.seed,
        "user_provided_suffix": None if run.role == PLAIN_ROLE else run.role,
        "error": {"code": run.reason, "message": run.detail, "param": None} if status == "failed" else None,
        "integrations": [],
        "metadata": None,
        "adapter": f"{model.adapter}@{model.version}" if model else None,
        "adapter_sha256": run.sha256,
        "dataset_sha256": run.manifest or None,
    }


def checkpoint_told(run: Run, model: TunedModel) -> dict[str, Any]:
    return {
        "id": f"ftckpt-{run.run.partition('-')[2]}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": run.updated_at // SECOND,
        "fine_tuned_model_checkpoint": str(model),
        "fine_tuning_job_id": run.run,
        "step_number": run.step,
        "metrics": {"step": run.step, "train_loss": run.loss, "full_valid_loss": run.held_out_loss},
        "adapter_sha256": run.sha256,
    }


def events_told(story: Iterable[Event], model: TunedModel | None) -> list[dict[str, Any]]:
    """The newest first, as clients expect them."""
    return [_told(event, model) for event in story][::-1]


def event_named(name: str | None) -> str | None:
    """The event that is told by this name; None where none is."""
    return name.removeprefix(EVENT_PREFIX) if name and name.startswith(EVENT_PREFIX) else None


def _told(event: Event, model: TunedModel | None) -> dict[str, Any]:
    level, message, data = _words(event, model)
    return {
        "id": f"{EVENT_PREFIX}{event.id}",
        "object": "fine_tuning.job.event",
        "created_at": event.time // SECOND,
        "level": level,
        "message": message,
        "type": "metrics" if data else "message",
        "data": data,
    }


def _words(event: Event, model: TunedModel | None) -> tuple[str, str, dict[str, Any] | None]:
    match event:
        case training.TrainingRequested():
            return "info", f"Created fine-tuning job: {event.id}", None
        case training.TrainingAccepted():
            told = f"Fine-tuning job started: {event.examples} examples, dataset {event.manifest}"
            return "info", told, None
        case training.TrainingProgressed():
            return "info", _progress(event), _figures(event)
        case training.TrainingWithdrawn():
            return "warn", "Cancellation was asked for", None
        case training.TrainingRefused() | training.TrainingFailed():
            return "error", f"The job ended as {event.reason}: {event.detail}", None
        case training.TrainingCompleted():
            told = f"New fine-tuned model created: {model}" if model else "The job has been completed"
            return "info", f"{told}; adapter {event.sha256}", None
    return "info", event.type, None


def _progress(event: training.TrainingProgressed) -> str:
    loss = "" if event.loss is None else f": training loss={event.loss:.4f}"
    return f"Step {event.step}/{event.steps}{loss}" if event.phase == "train" else f"{event.phase} {event.step}"


def _figures(event: training.TrainingProgressed) -> dict[str, Any]:
    return {
        "phase": event.phase,
        "step": event.step,
        "total_steps": event.steps,
        "train_loss": event.loss,
        "valid_loss": event.held_out_loss,
        "tokens_per_second": event.tokens_per_second,
        "seconds_left": event.seconds_left,
    }
