"""Companies and their keys."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from rillfold.http.access import Admin, Serving, company_of
from rillfold.http.automation import Placed, publish
from schemas.company import CompanyRegistered

router = APIRouter(tags=["companies"])


class NewCompany(BaseModel):
    model_config = ConfigDict(extra="forbid")
    company_id: str
    name: str = Field("", max_length=200)


class Joined(BaseModel):
    company_id: str
    api_key: str
    """Shown this once: only its hash is kept."""
    registered: Placed


@router.post("/companies", status_code=201)
async def join(given: NewCompany, asker: Admin, serving: Serving) -> Joined:
    """Register a company and make an API key for it. Again: its new name, and one more key."""
    company = company_of(asker, given.company_id)
    event = CompanyRegistered(**serving.first(company), name=given.name or company)
    (registered,) = await publish(serving, [event])
    return Joined(company_id=company, api_key=serving.keys.make(company), registered=registered)
