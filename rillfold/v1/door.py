"""The serving worker's own app: /v1 for whoever has the operator's token, which the API before it has; and /health."""

from collections.abc import Iterable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gpu_workers.serve.port import InferenceEngine
from rillfold import __version__
from rillfold.http.operator import Operator, OperatorOnly
from rillfold.http.strict_json import TooManyValues
from rillfold.v1.errors import openai_error
from rillfold.v1.routes import openai_routes


def serving_app(engine: InferenceEngine, operator: Operator) -> FastAPI:
    app = FastAPI(title="Rillfold serving worker", version=__version__, redirect_slashes=False)
    app.include_router(openai_routes(engine))
    app.add_middleware(OperatorOnly, operator=operator)

    @app.get("/health")
    async def health() -> JSONResponse:
        """503 when the engine's thread is gone: nothing will be answered any more."""
        alive = engine.alive()
        return JSONResponse({"alive": alive}, 200 if alive else 503, headers=None if alive else {"Retry-After": "5"})

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(step)[:80] for step in first["loc"][1:])
        return JSONResponse(openai_error(f"{where}: {first['msg']}", "invalid_value", where, 400), 400)

    @app.exception_handler(TooManyValues)
    async def too_many(_: Request, error: TooManyValues) -> JSONResponse:
        return JSONResponse(openai_error(error.detail, "too_many_values", None, 400), 400)

    @app.exception_handler(RecursionError)
    async def deep(_: Request, __: RecursionError) -> JSONResponse:
        return JSONResponse(openai_error("The request is nested too deep.", "too_deep", None, 400), 400)

    return app


class EngineMetrics(Collector):
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
