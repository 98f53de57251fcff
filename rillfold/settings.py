"""The one frozen Settings, and the only place that reads the environment."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Annotated, NamedTuple, get_args

import msgspec

from gpu_workers.bases.files import listed
from schemas.errors import Stop
from schemas.near import near
from schemas.topics import TopicNames

PREFIX = "RILLFOLD_"
LEGAL_SCHEMA = re.compile(r"[A-Za-z0-9._-]{1,63}")
"""Postgres cuts longer names off, and two of them may then be one."""

_CREDENTIALS = re.compile(r"(?:(?<=//)|^(?!\w+://|[\[{])).*@|(?<=\?).*", re.DOTALL)
_PORT = r"([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_URL = rf"^https?://(\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]]+)(:{_PORT})?(/[^\s?#]*)?\Z"
"""What no client could read raises in the middle of its work."""


def shown(value: str) -> str:
    """No line of ours says again what a URL holds of credentials."""
    return _CREDENTIALS.sub(lambda found: "...@" if "@" in found[0] else "...", value)


def _url(such_as: str, instead: str) -> msgspec.Meta:
    """`instead`: the settings that say how we get in there. A URL is shown, they are not."""
    told = f"a URL such as {such_as}, and how we get in there is said by {instead}"
    return msgspec.Meta(pattern=_URL, description=told)


BY_NAME = "RILLFOLD_MLFLOW_USERNAME and RILLFOLD_MLFLOW_PASSWORD"
ApiUrl = Annotated[str, _url("http://10.0.0.7:8700", "RILLFOLD_API_KEY")]
ServeUrl = Annotated[str, _url("http://10.0.0.7:8701", "RILLFOLD_SERVE_TOKEN")]
MlflowUrl = Annotated[str, _url("http://10.0.0.7:5000", f"RILLFOLD_MLFLOW_TOKEN, or by {BY_NAME}")]

Names = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9.:_\[\]-]*( *, *[A-Za-z0-9.:_\[\]-]+)*$",
        description="names such as serve.internal,10.0.0.7",
    ),
]


SECRETS = frozenset({"api_key", "mlflow_password", "mlflow_token", "postgres_dsn", "serve_token"})
ALSO: Mapping[str, tuple[str, ...]] = {
    "cache_dir": ("XDG_CACHE_HOME",),
    "profiles_file": ("XDG_CONFIG_HOME",),
    "llama_cpp_path": ("LLAMA_CPP_PATH",),
    "mlflow_token": ("MLFLOW_TRACKING_TOKEN",),
    "mlflow_username": ("MLFLOW_TRACKING_USERNAME",),
    "mlflow_password": ("MLFLOW_TRACKING_PASSWORD",),
}
"""Variables of others that a setting heeds where its own is not there."""


class InForce(NamedTuple):
    name: str
    value: object
    source: str | None
    """The variable that says so. None: nobody does, and it is the default."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Each field is read from RILLFOLD_<FIELD>. Defaults are written here and nowhere else."""

    data_dir: Path = Path(".rillfold")
    app: Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z_][\w.]*(:[A-Za-z_]\w*)?)?$")] | None = None
    """An application of one's own: a module whose `app` it is, or module:attribute. Empty: none. None: those of
    installed packages."""
    provider: Annotated[str, msgspec.Meta(pattern="^(embedded|external|compose)$")] = "embedded"
    bootstrap_servers: str | None = None
    kafka_security: Annotated[
        str,
        msgspec.Meta(
            pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$",
            description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
        ),
    ] = "PLAINTEXT"
    kafka_mechanism: Annotated[
        str,
        msgspec.Meta(
            pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$", description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
        ),
    ] = "SCRAM-SHA-512"
    kafka_user: str | None = None
    kafka_password_file: Path | None = None
    """The password itself is no setting: everybody may see the environment of a process that he may look at."""
    kafka_ca_file: Path | None = None
    """Authorities (PEM) that may sign a broker's certificate. None: those that this machine trusts."""
    kafka_cert_file: Path | None = None
    """Our own certificate (PEM), for a broker that asks for one."""
    kafka_key_file: Path | None = None
    """Its key. None: it stands in the same file."""
    postgres_dsn: str | None = None
    postgres_schema: str | None = None
    """Where the read model lies. None: `rillfold` with the topic prefix before it, so that deployments do not mix."""
    topic_prefix: str = ""
    topic_map: dict[str, str] = {}
    partitions: dict[str, int] = {}
    """Of single topics; 4 of the others."""
    schema_registry: str | None = None
    # The embedded stack: 0 is any free port; what was downloaded is kept in the cache for all projects.
    kafka_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    postgres_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    cache_dir: Path = Path.home() / ".cache" / "rillfold"
    maven_repository: str | None = None
    adapter_store: Annotated[str, msgspec.Meta(pattern=r"\S")] | None = None
    """Where adapters are kept: a folder, or a URL of fsspec such as s3://bucket/adapters. None: in the data folder."""
    adapter_keys: Path | None = None
    """A public key (PEM), or a folder of *.pub: adapters that none of them signed are not loaded. None: their hashes in
    the log vouch for them."""
    base_model: str = "smollm2-135m-instruct"
    """What is trained and served where nobody says otherwise: a packaged name, a name of the list, or a folder."""
    base_models: dict[str, str] = {}
    """What requests may name: name -> packaged name or folder. Empty: all that is packaged. `base_model` always is."""
    train_max_texts: Annotated[int, msgspec.Meta(ge=1)] = 20_000
    """Steps times batch of one run."""
    train_max_seconds: Annotated[float, msgspec.Meta(gt=0)] = 21_600.0
    """From the beginning of a training to its end."""
    train_max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 256 << 20
    """Of one dataset's rows."""
    train_runs_per_day: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of one company, at work within 24 hours. 0: any number."""
    train_seconds_per_day: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """That runs of one company take within 24 hours; one that has begun goes to its end. 0: any number."""
    train_threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Part of an adapter's identity: another count gives other bytes. 0: as many as there are cores."""
    gate: Annotated[str, msgspec.Meta(pattern="^(on|off)$", description="on or off")] = "on"
    """Whether a new adapter has to prove itself before it answers for its role. off: each does once it is ready."""
    gate_irrelevance: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.8
    """The least share of requests that need no tool which it has to answer without a call."""
    gate_malformed: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.02
    """The largest share of its answers that may hold a call that cannot be read."""
    api_host: str = "127.0.0.1"
    api_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8700
    api_url: ApiUrl | None = None
    """Where `rillfold.automation` finds the API; None: on this machine, at `api_port`."""
    api_key: str | None = None
    """None: the admin key that `rillfold api` keeps in the data folder."""
    profile: str | None = None
    """A name of `profiles_file`: which API the commands ask, and by which key, whatever `api_url` and `api_key` say."""
    profiles_file: Path = Path.home() / ".config" / "rillfold" / "profiles.toml"
    company_requests: Annotated[int, msgspec.Meta(ge=1)] = 64
    """A company's requests under way at once, in each API process: also those that wait, and streams."""
    company_rate: Annotated[float, msgspec.Meta(ge=0.02)] = 100.0
    """Its requests a second; what it did not use for ten seconds it may use at once, and one in any case."""
    company_bytes: Annotated[int, msgspec.Meta(ge=1)] = 256 << 20
    """Its bytes of request bodies a minute."""
    company_prompts: Annotated[int, msgspec.Meta(ge=1)] = 32
    """Its questions to models by HTTP under way at once."""
    serve_host: str = "127.0.0.1"
    """The serving worker's own HTTP takes the operator's token: the API stands before it."""
    serve_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8701
    serve_threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    """0: as many as there are cores."""
    serve_dtype: Annotated[str, msgspec.Meta(pattern="^(auto|float32|bfloat16|nf4)$")] = "auto"
    """auto: bfloat16 on a GPU that has it, float32 elsewhere; nf4: the base that qlora trains on, computed so."""
    serve_rows: Annotated[int, msgspec.Meta(ge=1)] = 32
    """Questions answered at once."""
    serve_adapters: Annotated[int, msgspec.Meta(ge=1)] = 100
    """Adapters kept in memory."""
    serve_company_adapters: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of these, held at once by questions of one company. 0: half of them."""
    serve_company_waiting: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Questions of one company in the engine. 0: a quarter of 1,024."""
    serve_company_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    """One company's tokens a minute, of prompts and answers; those of a minute at once after a pause. 0: any number."""
    serve_in_flight: Annotated[int, msgspec.Meta(ge=1)] = 128
    """Requests of the log asked of the engine at once: over `serve_rows`, so that a row that ends has a next."""
    serve_memory: Annotated[int, msgspec.Meta(ge=0)] = 0
    """MiB for the keys and values of all rows and remembered prompts. 0: what suits the machine."""
    serve_gpu_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.9
    """The part of a GPU's memory that is used in all."""
    serve_public: str | None = None
    """A file of prompts' beginnings that are no company's own: what is read of them once, all may use again."""
    serve_drain_seconds: Annotated[float, msgspec.Meta(ge=0, le=60)] = 20.0
    """After SIGTERM, questions by HTTP under way are answered for so long. Supervisors wait for 30 seconds."""
    serve_url: ServeUrl | None = None
    """The serving worker's HTTP address: the API forwards /v1 to it."""
    serve_token: str | None = None
    """The operator's token, for workers on other machines; None: the one in the data folder."""
    hosts: Names = ""
    """More names, with commas between, under which the workers' own ports may be asked."""
    allow_private_tools: bool = False
    """Tools may live on this machine and in private networks, over plain http: for development, and for the demo."""
    tool_patience_seconds: Annotated[float, msgspec.Meta(ge=0)] = 120.0
    """A tool that is away or overloaded is tried again for so long, under one idempotency key."""
    llama_cpp_path: Path | None = None
    """llama-server or a folder that holds it, from LLAMA_CPP_PATH too. None: the package xllamacpp."""
    mlflow_url: MlflowUrl | None = None
    """An MLflow that training runs are noted in, as the log tells of them. None: nowhere."""
    mlflow_token: str | None = None
    """How we get in there, by the names that its own client knows, too."""
    mlflow_username: str | None = None
    mlflow_password: str | None = None
    session_timeout: Annotated[float, msgspec.Meta(ge=1)] = 15.0
    """Seconds without a sign of life after which the others take a worker's partitions over."""
    worker_host: str = "127.0.0.1"
    """Where each worker answers /health, /ready and /metrics. Rows are answered on this machine only."""
    worker_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    accept_loss: dict[
        Annotated[str, msgspec.Meta(pattern=r"^[^/@#]+/\d+@\d+(#[1-9]\d{0,8})?$")], Annotated[int, msgspec.Meta(ge=0)]
    ] = {}
    """Of sources that no longer hold what was folded: where that was -> the offset at which to go on."""
    stall_seconds: Annotated[float, msgspec.Meta(ge=2)] = 25.0
    """Behind the log's end and still for so long, a worker is no longer ready, and says where it stands."""
    stall_exit_seconds: Annotated[float, msgspec.Meta(ge=1)] = 60.0
    """And for so long after that, it ends with code 70, so that its supervisor starts it again."""
    failpoint: str = ""
    """For tests: `appended:3` kills the fold when it passes that step of a commit for the third time."""

    def address(self, door: str) -> str:
        """Where `api` or `serve` answers HTTP."""
        url: str | None = getattr(self, f"{door}_url")
        return url or f"http://{getattr(self, f'{door}_host')}:{getattr(self, f'{door}_port')}"

    def topic_names(self) -> TopicNames:
        return TopicNames(self.topic_prefix, self.topic_map, self.partitions)

    def bases(self) -> Mapping[str, str]:
        """Base models: the name that requests use -> a packaged name, or a folder of this machine."""
        return listed(self.base_models, self.base_model)

    def base_name(self, word: str | None = None) -> str:
        """What requests call a base model; a folder of the list by its name. None: the one that is standard here."""
        word, bases = word or self.base_model, self.bases()
        return word if word in bases else next((name for name, where in bases.items() if where == word), word)

    def read_model(self) -> str:
        schema = self.postgres_schema or f"{self.topic_prefix}rillfold"
        if not LEGAL_SCHEMA.fullmatch(schema):
            raise Stop(
                f"The read model cannot lie in a Postgres schema named {schema!r}: set RILLFOLD_POSTGRES_SCHEMA "
                "to 1 to 63 letters, digits, dots, _ or -."
            )
        return schema


def from_env(environ: Mapping[str, str] | None = None) -> Settings:
    """A bad value stops the program with the variable's name."""
    environ = os.environ if environ is None else environ
    given: dict[str, object] = {}
    if "XDG_CACHE_HOME" in environ:
        given["cache_dir"] = Path(environ["XDG_CACHE_HOME"]) / "rillfold"
    if "XDG_CONFIG_HOME" in environ:
        given["profiles_file"] = Path(environ["XDG_CONFIG_HOME"]) / "rillfold" / "profiles.toml"
    if environ.get("LLAMA_CPP_PATH"):
        given["llama_cpp_path"] = Path(environ["LLAMA_CPP_PATH"])
    for word in ("token", "username", "password"):
        if theirs := environ.get(f"MLFLOW_TRACKING_{word.upper()}"):
            given[f"mlflow_{word}"] = theirs
    return Settings(**given | given_by(Settings, PREFIX, environ))  # type: ignore[arg-type]


@contextmanager
def with_profile(name: str) -> Iterator[None]:
    """For what a command does, and for the processes that it starts."""
    variable = f"{PREFIX}PROFILE"
    before = os.environ.get(variable)
    os.environ[variable] = name
    try:
        yield
    finally:
        del os.environ[variable]
        if before is not None:
            os.environ[variable] = before


def in_force(environ: Mapping[str, str] | None = None) -> Iterator[InForce]:
    """Each setting as it is in force. Of a secret only that it is there."""
    environ = os.environ if environ is None else environ
    settings = from_env(environ)
    for field in msgspec.structs.fields(Settings):
        name, value = PREFIX + field.name.upper(), getattr(settings, field.name)
        source = next((each for each in (name, *ALSO.get(field.name, ())) if environ.get(each)), None)
        value = str(value) if isinstance(value, Path) else value
        yield InForce(name, "(not shown)" if value and field.name in SECRETS else value, source)


def misspelt(environ: Mapping[str, str] | None = None) -> Iterator[str]:
    """What looks like a setting and is none. No error: a platform, or another release, has variables of its own."""
    names = [PREFIX + field.name.upper() for field in msgspec.structs.fields(Settings)]
    for name in sorted(set(os.environ if environ is None else environ) - set(names)):
        if name.startswith(PREFIX) and "_SERVICE_" not in name and (close := near(name, names, close=0.85)):
            yield f"{name} is no setting, and is not read. Is {close[0]} meant?"


PLAIN = {"Expected `int`, got `str`": "a whole number", "Expected `float`, got `str`": "a number"}


def given_by(kind: type[msgspec.Struct], prefix: str, environ: Mapping[str, str] | None = None) -> dict[str, object]:
    """What the environment says of a struct's fields: <prefix><FIELD>, each with the field's own bounds."""
    environ = os.environ if environ is None else environ
    given: dict[str, object] = {}
    for field in msgspec.structs.fields(kind):
        name = prefix + field.name.upper()
        if name not in environ:
            continue
        text = environ[name]
        try:
            given[field.name] = _parse(text, field.type)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            wanted = _described(field.type) or PLAIN.get(str(error))
            why = f"it is to be {wanted}" if wanted else error
            raise Stop(f"{name}={shown(text)!r} is not usable: {why}. Correct or unset the variable.") from error
    return given


def _described(kind: object) -> str | None:
    """What a value is, in words, where its pattern says less."""
    if isinstance(kind, msgspec.Meta):
        return kind.description
    parts = (*get_args(kind), *getattr(kind, "__metadata__", ()))
    return next((told for part in parts if (told := _described(part))), None)


def _parse(text: str, kind: object) -> object:
    if kind is Path or Path in get_args(kind):
        if not text.strip() or "\0" in text:
            raise msgspec.ValidationError("it names no place")
        return Path(text)
    source: object = msgspec.json.decode(text) if getattr(kind, "__origin__", None) is dict else text
    found: object = msgspec.convert(source, kind, strict=False)
    if isinstance(found, float) and not isfinite(found):
        raise msgspec.ValidationError("it has no end")
    return found
