"""The serving worker's own app: /v1 for whoever has the operator's token, which the API before it has; and /health."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from gpu_workers.serve.port import InferenceEngine
from rillfold import __version__
from rillfold.http.operator import Operator, OperatorOnly
from rillfold.http.strict_json import TooManyValues
from rillfold.v1.drain import AGAIN, Drain
from rillfold.v1.errors import openai_error
from rillfold.v1.routes import openai_routes


def serving_app(engine: InferenceEngine, operator: Operator, drain: Drain | None = None) -> FastAPI:
    app = FastAPI(title="Rillfold serving worker", version=__version__, redirect_slashes=False)
    app.include_router(openai_routes(engine))
    drain = drain or Drain()
    app.add_middleware(drain.door)
    app.add_middleware(OperatorOnly, operator=operator)

    @app.get("/health")
    async def health() -> JSONResponse:
        """503 when the engine is gone (its thread, its device, or no step works), and when nobody more is let in."""
        alive = engine.alive()
        if alive and not drain.begun:
            return JSONResponse({"alive": True})
        content = {"alive": alive} | ({"draining": True} if drain.begun else {})
        return JSONResponse(content, 503, headers={"Retry-After": AGAIN})

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
