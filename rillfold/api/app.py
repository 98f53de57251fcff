"""The API put together."""

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from rillfold import __version__
from rillfold.api import (
    automation,
    automation_jobs,
    companies,
    error_answers,
    health,
    models,
    projections,
    status,
    topics,
)
from rillfold.api.entry import Entry
from rillfold.api.tuning import files, jobs
from rillfold.http.limits import Limiter
from rillfold.http.metering import Metered
from rillfold.wiring import Services

ROUTERS = (
    automation.router,
    automation_jobs.router,
    companies.router,
    topics.router,
    projections.router,
    models.router,
    files.router,
    jobs.router,
    health.router,
    status.router,
)


def create_app(services: Services) -> FastAPI:
    """Whoever opened the services closes them after the app. Metrics are for a listener of their own."""
    # No redirects: they would repeat what the request says of its host.
    app = FastAPI(title="Rillfold", version=__version__, responses=error_answers.RESPONSES, redirect_slashes=False)
    app.state.services, app.state.registry = services, CollectorRegistry()
    app.state.limiter = Limiter.of(services.settings)
    app.state.standing = health.Reachable(services)
    error_answers.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(Entry, keys=services.keys, limiter=app.state.limiter)
    app.add_middleware(Metered, registry=app.state.registry)
    return app
