"""The model proposes, the gate disposes: only a schema-valid call of a tool that the company offers goes out."""

from collections.abc import Iterable, Mapping

import msgspec

from processors.errors import UnusableSchema
from processors.parameters import DEPTH, Json, deeper, first_mistake
from processors.parameters import canonical as canonical
from processors.parameters import check_parameters as check_parameters
from schemas.company import ToolRegistered, ToolUse
from schemas.words import NAME, fits

ARGUMENT_CHARS = 16_000
DETAIL_CHARS = 500


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as a job sees it. `registered` is the place in the log where it was offered."""

    name: str
    description: str = ""
    parameters: Json
    registered: str = ""


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """The call may go out. Arguments are canonical JSON text now."""

    tool: str
    arguments: str


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """The call stays here."""

    reason: str
    """malformed_call, several_calls, unknown_tool, arguments_too_large, invalid_arguments or unusable_schema."""
    detail: str = ""


def snapshot(tools: Iterable[tuple[ToolRegistered, str]]) -> str:
    """The tools of a company, each with its place in the log, as a job carries them: canonical, sorted by name."""
    offers = [offer for tool, place in tools if (offer := _offer(tool, place))]
    return canonical(sorted(offers, key=lambda offer: offer.name))


def _offer(tool: ToolRegistered, place: str) -> Offer | None:
    """A tool that can never be called is not offered: whoever registered it past the API did not check it."""
    try:
        parameters = parameters_of(tool)
        check_parameters(parameters)
    except UnusableSchema:
        return None
    return Offer(name=tool.name, description=tool.description, parameters=parameters, registered=place)


def offers(text: str) -> Mapping[str, Offer]:
    """Raises `UnusableSchema` where a job carries something else than a snapshot."""
    try:
        return {offer.name: offer for offer in msgspec.json.decode(text, type=list[Offer])}
    except (ValueError, RecursionError) as error:
        raise UnusableSchema(f"the tools that came with the job: {error}") from error


def parameters_of(tool: ToolRegistered) -> Json:
    try:
        return msgspec.json.decode(tool.parameters or "{}", type=Json)
    except (ValueError, RecursionError) as error:
        raise UnusableSchema(f"the parameters of {tool.name} are not a JSON object: {error}") from error


def check(call: ToolUse, allowed: Mapping[str, Offer]) -> Allowed | Denied:
    """`allowed` holds one company's tools and nobody else's."""
    offer = allowed.get(call.name)
    if offer is None:
        return _denied("unknown_tool", f"{call.name!r:.100} is not offered by this company")
    arguments = _arguments(call)
    if isinstance(arguments, Denied):
        return arguments
    try:
        wrong = first_mistake(arguments, offer.parameters)
    except UnusableSchema as error:
        return _denied("unusable_schema", str(error))
    return _denied("invalid_arguments", wrong) if wrong else Allowed(tool=call.name, arguments=canonical(arguments))


def check_alone(call: ToolUse) -> Allowed | Denied:
    """What holds of every call, where it is not known what the company offers."""
    arguments = _arguments(call)
    return arguments if isinstance(arguments, Denied) else Allowed(tool=call.name, arguments=canonical(arguments))


def _arguments(call: ToolUse) -> Json | Denied:
    """The arguments, where they are an object that can be written again, and the name is one that a tool can have."""
    if not fits(NAME, call.name):
        return _denied("unknown_tool", f"{call.name!r:.100} is no name of a tool")
    if len(call.arguments) > ARGUMENT_CHARS:
        return _denied("arguments_too_large", f"{len(call.arguments)} characters, at most {ARGUMENT_CHARS}")
    try:
        arguments = msgspec.json.decode(call.arguments, type=Json)
        if deeper(arguments, DEPTH):
            return _denied("invalid_arguments", f"the arguments are deeper than {DEPTH}")
        canonical(arguments)
    except (ValueError, OverflowError, RecursionError) as error:
        return _denied("malformed_call", str(error))
    return arguments


def _denied(reason: str, detail: str) -> Denied:
    return Denied(reason=reason, detail="".join(c if c.isprintable() else "?" for c in detail[:DETAIL_CHARS]))
