"""From a job as it is asked for to its training request, with everything refused that can be known at once."""

import secrets
from typing import TypeVar

from processors.training.admit import NotAdmitted, plain_settings
from processors.training.settings import METHOD_NAMES
from processors.tuning.lines import DPO, SUPERVISED
from processors.tuning.names import JOB_PREFIX, new_name
from processors.tuning.wishes import OURS, PLAIN_ROLE, Tuning, ranges_of, settings_of
from projections.tuning.files import UploadedFile
from rillfold.api.tuning.files import the_file
from rillfold.api.tuning.forms import DpoHyperparameters, Hyperparameters, NewTuning
from rillfold.api.tuning.wrong import WrongPart
from rillfold.event_log import now
from rillfold.wiring import Services
from schemas.adapters import ROLE
from schemas.training import TrainingRequested

ADAPTER_METHOD = "lora"
Given = TypeVar("Given", int, float)


async def request_of(serving: Services, company: str, given: NewTuning) -> TrainingRequested:
    """Raises `WrongPart`."""
    wish = _wish(given)
    _base(serving, given.model)
    names = [("training_file", wish.training_file)]
    names += [("validation_file", wish.validation_file)] if wish.validation_file else []
    files = [_fits(await the_file(serving, company, name, param), wish, param) for param, name in names]
    at = now()
    id_ = new_name(JOB_PREFIX, at, secrets.token_hex(4))
    request = TrainingRequested(
        id=id_,
        company=company,
        time=at,
        correlation=id_,
        role=_role(given.suffix),
        base_model=given.model,
        method=ADAPTER_METHOD,
        ranges=ranges_of(files),
        settings=settings_of(wish, _more(given)),
    )
    settings = plain_settings(request, METHOD_NAMES)
    if isinstance(settings, NotAdmitted):
        raise WrongPart("settings", settings.reason, settings.detail)
    return request


def _wish(given: NewTuning) -> Tuning:
    kind, numbers = given.method.type if given.method else SUPERVISED, Hyperparameters()
    if given.method and (other := given.method.supervised if kind == DPO else given.method.dpo):
        told = f"method.type is {kind}, and hyperparameters are given of another: leave those out."
        raise WrongPart("method", "bad_method", f"{told} ({type(other).__name__})")
    of_method = (given.method.dpo if kind == DPO else given.method.supervised) if given.method else None
    if of_method and given.hyperparameters:
        raise WrongPart("hyperparameters", "bad_method", "Hyperparameters stand in method already: give them once.")
    numbers = of_method.hyperparameters if of_method else given.hyperparameters or numbers
    beta = numbers.beta if isinstance(numbers, DpoHyperparameters) else None
    if given.validation_file == given.training_file:
        raise WrongPart("validation_file", "same_file", "What is trained on measures nothing: name another file.")
    return Tuning(
        method=kind,
        training_file=given.training_file,
        validation_file=given.validation_file,
        n_epochs=_number(numbers.n_epochs),
        batch_size=_number(numbers.batch_size),
        learning_rate_multiplier=_number(numbers.learning_rate_multiplier),
        beta=_number(beta),
        seed=given.seed,
    )


def _number(given: Given | str | None) -> Given | None:
    return None if given is None or isinstance(given, str) else given


def _more(given: NewTuning) -> dict[str, object]:
    if twice := sorted(set(OURS) & given.settings.keys()):
        told = f"settings.{twice[0]} is what other fields of a job say (files, method, hyperparameters, seed)."
        raise WrongPart("settings", "bad_settings", f"{told} Leave it out of settings.")
    return given.settings


def _role(suffix: str | None) -> str:
    if suffix and not ROLE.fullmatch(suffix):
        told = "suffix names a role: 1 to 64 letters, digits, '.', '_', '-', the first no '.' and no '-'."
        raise WrongPart("suffix", "bad_suffix", told)
    return suffix or PLAIN_ROLE


def _base(serving: Services, model: str) -> None:
    if model in serving.settings.bases():
        return
    known = ", ".join(serving.settings.bases())
    told = f"No base model {model[:80]!r} can be tuned here; there are {known}. A tuned model is tuned from its base."
    raise WrongPart("model", "model_not_found", told)


def _fits(file: UploadedFile, wish: Tuning, param: str) -> UploadedFile:
    if file.method != wish.method:
        told = f"{file.file} is for {file.method}, and the job's method is {wish.method}."
        raise WrongPart(param, "bad_method", f"{told} Set method.type to {file.method}, or name another file.")
    return file
