"""Who asks, and for which company. The credential decides, never the request."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from rillfold.api.entry import key_of, unauthorized
from rillfold.http.errors import ApiError, NotFound
from rillfold.http.keys import Principal
from rillfold.wiring import Services
from schemas.codec.primitives import sane_company

bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer rk_...`")
header = APIKeyHeader(name="X-API-Key", auto_error=False)


def services(request: Request) -> Services:
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


def principal(
    request: Request,
    _token: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    _key: Annotated[str | None, Depends(header)],
) -> Principal:
    """The entry knows, from before the body was read; the two credentials stand here for the documentation."""
    found = getattr(request.state, "asker", None)
    if not isinstance(found, Principal):
        raise unauthorized(None)
    return found


Serving = Annotated[Services, Depends(services)]
Asker = Annotated[Principal, Depends(principal)]


def admin(asker: Asker) -> Principal:
    if not asker.admin:
        raise ApiError(403, "forbidden", "This needs the admin key.")
    return asker


Admin = Annotated[Principal, Depends(admin)]


def still_known(request: Request, asker: Asker, serving: Serving) -> Callable[[], None]:
    """For what lasts: to be called again and again. Raises as the entry does once the key is known no more."""
    key = key_of(request.headers)

    def ask() -> None:
        if key is None or serving.keys.who(key) != asker:
            raise unauthorized(key)

    return ask


StillKnown = Annotated[Callable[[], None], Depends(still_known)]


def company_of(asker: Principal, named: str | None) -> str:
    """The company that a request is about."""
    company = named or asker.company
    if company is None:
        raise ApiError(422, "company_missing", "The admin key belongs to no company: name one in company_id.")
    if not sane_company(company):
        raise ApiError(422, "bad_company", "A company is 1 to 128 letters, digits, dots, underscores or hyphens.")
    if not asker.may(company):
        raise NotFound
    return company
