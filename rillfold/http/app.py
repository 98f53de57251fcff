"""The API put together."""

from __future__ import annotations

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from rillfold import __version__
from rillfold.http import automation, companies, errors, health, models, projections, topics
from rillfold.http.limits import BodyLimit, Metered
from rillfold.wiring import Services

ROUTERS = (automation.router, companies.router, topics.router, projections.router, models.router, health.router)


def create_app(services: Services) -> FastAPI:
    """Whoever opened the services closes them after the app."""
    app = FastAPI(title="Rillfold", version=__version__)
    app.state.services, app.state.registry = services, CollectorRegistry()
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(BodyLimit)
    app.add_middleware(Metered, registry=app.state.registry)
    return app
