"""/v1/files: a company's own files, which stand in the log and nowhere else."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from tempfile import TemporaryFile
from typing import IO, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from processors.tuning import said
from processors.tuning.lines import FileRefused, purpose_refused
from processors.tuning.names import FILE, FILE_PREFIX
from processors.tuning.told import file_told
from projections.tuning.files import FILES, UploadedFile
from rillfold.api.access import Asker, Serving, company_of
from rillfold.api.tuning import found
from rillfold.api.tuning.uploading import keep
from rillfold.api.tuning.wrong import WrongPart, no_file, refused
from rillfold.event_log import now
from rillfold.http.errors import ApiError
from rillfold.http.spooled import PIECE
from rillfold.http.strict_json import StrictRoute
from rillfold.wiring import Services
from schemas.codec.codec import decode
from schemas.company import FilePart
from streams.errors import MissingOffsets
from streams.history.replay import DATA_TOPIC
from streams.log.outgoing import to_outgoing
from streams.log.port import records_in

router = APIRouter(prefix="/v1/files", tags=["tuning"], route_class=StrictRoute)
LISTED = 10_000
FIELD_BYTES = 1_024
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "JSON Lines, at most 64 MiB."},
                        "purpose": {"type": "string", "enum": [said.PURPOSE]},
                    },
                }
            }
        },
    }
}
_LINES: dict[int | str, dict[str, Any]] = {200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}}}


class TuningFile(BaseModel):
    """As OpenAI's clients read it; and the hash of its bytes, its lines, and what they are for."""

    model_config = ConfigDict(extra="allow")
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["uploaded", "processed"]
    sha256: str
    lines: int
    method: str


class TuningFiles(BaseModel):
    object: Literal["list"] = "list"
    data: list[TuningFile]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileGone(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


@router.post("", openapi_extra=_FORM)
async def upload(request: Request, asker: Asker, serving: Serving, company_id: str | None = None) -> TuningFile:
    """Send a file to tune with. It is there whole when this answers, or nothing of it is a file."""
    company = company_of(asker, company_id)
    form = await _form(request)
    try:
        file = _file(form)
        kept = await keep(serving, company, file.filename or "", file.file)
    except FileRefused as error:
        raise refused(error) from error
    finally:
        await form.close()
    row = await found.until(serving, FILES, f"{company}/{kept.file}", lambda row: bool(row.created_at))
    return _shown(kept, row is not None)


async def _form(request: Request) -> FormData:
    """Other forms would be read into memory whole."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(400, "bad_form", "A file is sent as multipart/form-data, with its purpose beside it.")
    try:
        return await request.form(max_files=1, max_fields=8, max_part_size=FIELD_BYTES)
    except HTTPException as error:
        raise ApiError(
            400, "bad_form", f"The body is no multipart/form-data that can be read: {error.detail}"
        ) from None
    except (ValueError, LookupError) as error:
        raise ApiError(400, "bad_form", f"The body is no multipart/form-data: {type(error).__name__}.") from None


def _file(form: FormData) -> UploadFile:
    if unknown := sorted(set(form) - {"file", "purpose"}):
        told = f"{unknown[0][:80]!r} is not supported here: leave it out."
        raise WrongPart(unknown[0][:80], "unknown_parameter", told)
    if wrong := purpose_refused(form.get("purpose")):
        raise wrong
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise WrongPart("file", "missing_file", "The form has no file: send it as multipart/form-data, with its name.")
    return file


@router.get("")
async def listed(
    asker: Asker,
    serving: Serving,
    company_id: str | None = None,
    purpose: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=LISTED)] = LISTED,
    order: Literal["asc", "desc"] = "desc",
) -> TuningFiles:
    """The company's files, the newest first."""
    company, wanted = company_of(asker, company_id), list[UploadedFile]()
    if purpose in (None, said.PURPOSE):
        there = found.those_of(serving, FILES, company, FILE_PREFIX, after if order == "desc" else None)
        wanted = [file async for file in there if file.created_at and not file.deleted]
    if order == "asc":
        wanted = [file for file in reversed(wanted) if after is None or file.file < after]
    data = [_shown(file) for file in wanted[:limit]]
    ends = (data[0].id, data[-1].id) if data else (None, None)
    return TuningFiles(data=data, first_id=ends[0], last_id=ends[1], has_more=len(wanted) > limit)


@router.get("/{file_id}")
async def file_of(file_id: str, asker: Asker, serving: Serving, company_id: str | None = None) -> TuningFile:
    """What is known of a file."""
    return _shown(await the_file(serving, company_of(asker, company_id), file_id))


@router.get("/{file_id}/content", response_class=StreamingResponse, responses=_LINES)
async def content(file_id: str, asker: Asker, serving: Serving, company_id: str | None = None) -> StreamingResponse:
    """The very bytes that were sent, out of the log, and held against their hash before the first is answered."""
    company = company_of(asker, company_id)
    file = await the_file(serving, company, file_id)
    kept = TemporaryFile()  # noqa: SIM115 - closed when it was sent
    try:
        await _read_back(serving, company, file, kept)
    except BaseException:
        kept.close()
        raise
    headers = {"Content-Length": str(file.size)}
    return StreamingResponse(_sent(kept), media_type="application/jsonl", headers=headers)


@router.delete("/{file_id}")
async def delete(file_id: str, asker: Asker, serving: Serving, company_id: str | None = None) -> FileGone:
    """Take a file off the list, and from jobs to come. Its events stay in the log, as all of a company's do."""
    company = company_of(asker, company_id)
    file = await the_file(serving, company, file_id)
    await serving.log.append([to_outgoing(said.deleted(company, file.file, now()), serving.names)])
    await found.until(serving, FILES, f"{company}/{file.file}", lambda row: row.deleted)
    return FileGone(id=file.file)


async def the_file(serving: Services, company: str, name: str, param: str | None = None) -> UploadedFile:
    """Raises where the company has none of that name. `param`: which part of a request names it."""
    known = await found.one(serving, FILES, f"{company}/{name}") if FILE.fullmatch(name) else None
    if known is None or not known.created_at or known.deleted:
        raise no_file(name, param)
    return known


async def _read_back(serving: Services, company: str, file: UploadedFile, kept: IO[bytes]) -> None:
    key, digest, parts = f"{company}/{file.file}".encode(), sha256(), 0
    try:
        for part in file.ranges:
            # Whoever writes to the log says where a file stands: it is looked for nowhere else.
            wire = serving.names.wire(DATA_TOPIC)
            async for record in records_in(serving.log, wire, part.partition, part.start, part.stop):
                if record.key != key:
                    continue
                event = decode(record.value, record.origin, record.timestamp, record.headers)
                if isinstance(event, FilePart) and event.company == company and event.part == parts:
                    said_then = event.text.encode()
                    digest.update(said_then)
                    await asyncio.to_thread(kept.write, said_then)
                    parts += 1
    except (MissingOffsets, KeyError, ValueError) as error:
        raise _not_whole(file) from error
    if digest.hexdigest() != file.sha256:
        raise _not_whole(file)
    kept.seek(0)


def _not_whole(file: UploadedFile) -> ApiError:
    told = f"The log does not hold {file.file} as it was sent: the operator finds what its topic lost."
    return ApiError(409, "not_whole", told)


async def _sent(kept: IO[bytes]) -> AsyncIterator[bytes]:
    with kept:
        while piece := kept.read(PIECE):
            yield piece


def _shown(file: UploadedFile, processed: bool = True) -> TuningFile:
    return TuningFile(**file_told(file, processed))
