"""An answer that holds JSON as it stands: to read it and to write it again would take everybody's time."""

from typing import Any

import msgspec
from fastapi import Response


def passed_on(answer: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
