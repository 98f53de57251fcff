"""Companies and their keys."""

import asyncio
from collections.abc import Callable
from itertools import takewhile
from typing import Annotated, TypeVar

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from rillfold.api.access import Admin, Serving, company_of
from rillfold.api.automation import Placed, publish
from rillfold.event_log import first
from rillfold.http.errors import NotFound
from rillfold.http.forms import Strict
from rillfold.http.keys import NoSuchKey, id_of
from rillfold.http.strict_json import StrictRoute
from schemas.company import CompanyRegistered

router = APIRouter(tags=["companies"], route_class=StrictRoute)
Made = TypeVar("Made")
KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{1,32}$")]


class NewCompany(Strict):
    company_id: str
    name: str = Field("", max_length=128)


class Joined(BaseModel):
    company_id: str
    api_key: str
    """Shown this once: only its hash is kept."""
    keys: int
    """How many keys the company has now. More than one: those before go on working until they are revoked."""
    registered: Placed


class Key(BaseModel):
    id: str
    company_id: str | None
    """null: the admin's."""
    made_at: int | None
    """Microseconds since the Unix epoch."""


class NewKey(BaseModel):
    id: str
    api_key: str
    """Shown this once: only its hash is kept."""


@router.post("/companies", status_code=201)
async def join(given: NewCompany, asker: Admin, serving: Serving) -> Joined:
    """Register a company and make an API key for it. Again: its new name, and one more key beside those it has."""
    company = company_of(asker, given.company_id)
    event = CompanyRegistered(**first(company), name=given.name or company)
    (registered,) = await publish(serving, [event])
    key = await asyncio.to_thread(serving.keys.make, company)
    # Counted up to this one: somebody may join the same company at once, or revoke this key already.
    before = takewhile(lambda each: each.id != id_of(key), serving.keys.list(company))
    return Joined(company_id=company, api_key=key, keys=len([*before]) + 1, registered=registered)


@router.get("/companies/{company_id}/keys")
async def keys(company_id: str, asker: Admin, serving: Serving) -> list[Key]:
    """A company's keys, the oldest first: their ids, never the keys."""
    found = serving.keys.list(company_of(asker, company_id))
    return [Key(id=each.id, company_id=each.company, made_at=each.made_at) for each in found]


@router.post("/companies/{company_id}/keys", status_code=201)
async def make_key(company_id: str, asker: Admin, serving: Serving) -> NewKey:
    """One more key for a company."""
    key = await asyncio.to_thread(serving.keys.make, company_of(asker, company_id))
    return NewKey(id=id_of(key), api_key=key)


@router.post("/keys/{key_id}/rotate", status_code=201)
async def rotate_key(key_id: KeyId, _: Admin, serving: Serving) -> NewKey:
    """A new key in place of this one, which is refused from now on."""
    key = await _changed(serving.keys.rotate, key_id)
    return NewKey(id=id_of(key), api_key=key)


@router.delete("/keys/{key_id}", status_code=204)
async def revoke_key(key_id: KeyId, _: Admin, serving: Serving) -> None:
    """Refuse this key from now on. The admin's last key can be made anew by whoever owns the data folder."""
    await _changed(serving.keys.revoke, key_id)


async def _changed(change: Callable[[str], Made], key_id: str) -> Made:
    try:
        return await asyncio.to_thread(change, key_id)
    except NoSuchKey:
        raise NotFound from None
