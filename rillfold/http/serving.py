"""The serving worker's own app: /v1, /health and /metrics. It asks for no key: the API stands before it."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gpu_workers.serve.port import InferenceEngine
from rillfold import __version__
from rillfold.http.openai import openai_routes


def serving_app(engine: InferenceEngine) -> FastAPI:
    app = FastAPI(title="Rillfold serving worker", version=__version__)
    registry = CollectorRegistry()
    registry.register(EngineMetrics(engine))
    app.include_router(openai_routes(engine))

    @app.get("/health")
    async def health() -> JSONResponse:
        """503 when the engine's thread is gone: nothing will be answered any more."""
        return JSONResponse({"model": engine.model, "alive": engine.alive()}, 200 if engine.alive() else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"][1:])
        shape = {"message": f"{where}: {first['msg']}", "type": "invalid_request_error", "param": where, "code": None}
        return JSONResponse({"error": shape}, 400)

    return app


class EngineMetrics:
    """Read at each scrape, so a scrape shows exactly which adapters are in memory, also when nobody asks for them."""

    def __init__(self, engine: InferenceEngine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        stats = self._engine.stats()
        for name, value in (("waiting", stats.waiting), ("running", stats.running)):
            yield GaugeMetricFamily(f"rillfold_serve_rows_{name}", f"Questions {name}.", value)
        yield GaugeMetricFamily("rillfold_serve_adapters_known", "Adapter versions that may be asked for.", stats.known)
        for name, value in (("loads", stats.loads), ("hits", stats.hits), ("evictions", stats.evictions)):
            yield CounterMetricFamily(f"rillfold_serve_adapter_{name}", f"Adapter {name} so far.", value)
        size = GaugeMetricFamily("rillfold_serve_adapter_bytes", "Adapters in memory.", labels=["adapter", "version"])
        for resident in self._engine.resident():
            size.add_metric([resident.key.name, str(resident.key.version)], resident.bytes)
        yield size
