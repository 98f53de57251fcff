"""The API put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from rillfold import __version__
from rillfold.http import automation, companies, errors, health, models, projections, topics
from rillfold.http.limits import BodyLimit, Metered
from rillfold.wiring import Services

ROUTERS = (automation.router, companies.router, topics.router, projections.router, models.router, health.router)


def create_app(opened: Callable[[], AbstractAsyncContextManager[Services]]) -> FastAPI:
    """`opened` holds the services for as long as the app runs."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened() as services:
            app.state.services = services
            yield

    app = FastAPI(title="Rillfold", version=__version__, lifespan=lifespan)
    app.state.registry = CollectorRegistry()
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(BodyLimit)
    app.add_middleware(Metered, registry=app.state.registry)
    return app
