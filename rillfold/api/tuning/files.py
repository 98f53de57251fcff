"""/v1/files: a company's own files, which stand in the log and nowhere else."""

import asyncio
from collections import deque
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
from processors.tuning.told import file_told, is_file
from projections.tuning.files import FILES, UploadedFile
from rillfold.api.access import Asker, Serving, company_of
from rillfold.api.tuning import found
from rillfold.api.tuning.reading import own_events, reading
from rillfold.api.tuning.uploading import keep
from rillfold.api.tuning.wrong import WrongPart, no_file, refused
from rillfold.event_log import now
from rillfold.http.errors import ApiError
from rillfold.http.spooled import PIECE
from rillfold.http.strict_json import StrictRoute
from rillfold.wiring import Services
from schemas.company import FilePart
from streams.errors import MissingOffsets
from streams.fairness.slices import Slices, in_turns
from streams.history.replay import DATA_TOPIC
from streams.log.outgoing import to_outgoing

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

    @classmethod
    def of(cls, found: list[TuningFile], limit: int) -> "TuningFiles":
        """`found`: one more than is told, where there is one."""
        data = found[:limit]
        ends = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=ends[0], last_id=ends[1], has_more=len(found) > limit)


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
    company = company_of(asker, company_id)
    if purpose not in (None, said.PURPOSE):
        return TuningFiles.of([], limit)
    async with reading(serving, company):
        if order == "desc":
            return TuningFiles.of(await _newest(serving, company, after, limit + 1), limit)
        return TuningFiles.of(await _oldest(serving, company, after, limit + 1), limit)


async def _newest(serving: Services, company: str, after: str | None, most: int) -> list[TuningFile]:
    found_so_far = list[TuningFile]()
    async for file in _files(serving, company, after):
        found_so_far.append(_shown(file))
        if len(found_so_far) == most:
            break
    return found_so_far


async def _oldest(serving: Services, company: str, after: str | None, most: int) -> list[TuningFile]:
    """The newest stand first in the database too: all are gone through, and the last ones kept."""
    last = deque[TuningFile](maxlen=most)
    async for file in _files(serving, company):
        if after is not None and file.file >= after:
            break
        last.append(_shown(file))
    return list(last)[::-1]


def _files(serving: Services, company: str, after: str | None = None) -> AsyncIterator[UploadedFile]:
    there = in_turns(found.those_of(serving, FILES, company, FILE_PREFIX, after), Slices())
    return (file async for file in there if is_file(file) and not file.deleted)


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
        async with reading(serving, company):
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
    if known is None or not is_file(known) or known.deleted:
        raise no_file(name, param)
    return known


async def _read_back(serving: Services, company: str, file: UploadedFile, kept: IO[bytes]) -> None:
    """Whoever has the company's key says where a file stands and how large it is: no more is looked through, or kept,
    than it says."""
    key, digest, parts, (at,) = f"{company}/{file.file}", sha256(), 0, file.ranges
    wire = serving.names.wire(DATA_TOPIC)
    try:
        async for event in own_events(serving, company, key, wire, at.partition, at.start, at.stop):
            if isinstance(event, FilePart) and event.part == parts:
                said_then = event.text.encode()
                if kept.tell() + len(said_then) > file.size:
                    raise _not_whole(file)
                digest.update(said_then)
                await asyncio.to_thread(kept.write, said_then)
                parts += 1
    except (MissingOffsets, KeyError, ValueError) as error:
        raise _not_whole(file) from error
    if (kept.tell(), digest.hexdigest()) != (file.size, file.sha256):
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
