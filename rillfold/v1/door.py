"""The serving worker's own app: /v1 for whoever has the operator's token, which the API before it has; and /health."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gpu_workers.serve.port import InferenceEngine
from rillfold import __version__
from rillfold.http.operator import Operator, OperatorOnly
from rillfold.http.strict_json import TooManyValues
from rillfold.v1.drain import AGAIN, Drain
from rillfold.v1.errors import openai_error
from rillfold.v1.routes import openai_routes

ROUTES = "GET /v1/models, GET /v1/models/{name}, POST /v1/chat/completions and GET /health"
NO_OBJECT = "The body is no JSON object: send one, as application/json."


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
        if first["type"] == "json_invalid" or not where:
            return JSONResponse(openai_error(NO_OBJECT, "invalid_json", None, 400), 400)
        return JSONResponse(openai_error(f"{where}: {first['msg']}", "invalid_value", where, 400), 400)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code)
        hint = f" There are {ROUTES}." if code else ""
        told = f"{request.method} {request.url.path[:200]}: {error.detail}.{hint}"
        content = openai_error(told, code or "invalid_request", None, error.status_code)
        return JSONResponse(content, error.status_code, headers=error.headers)

    @app.exception_handler(TooManyValues)
    async def too_many(_: Request, error: TooManyValues) -> JSONResponse:
        return JSONResponse(openai_error(error.detail, "too_many_values", None, 400), 400)

    @app.exception_handler(RecursionError)
    async def deep(_: Request, __: RecursionError) -> JSONResponse:
        return JSONResponse(openai_error("The request is nested too deep.", "too_deep", None, 400), 400)

    return app
