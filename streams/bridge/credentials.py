"""How a tool's credential travels: in which header, and never back into the log."""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

from schemas.company import ToolAuth
from schemas.errors import Poison
from streams.bridge.secrets import SecretStr

TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
KINDS = ("none", "bearer", "basic", "api_key", "header")
# Set by whoever sends the request, or read on its way: as a "credential" they would change what is sent, or to whom.
_NOT_CREDENTIALS = frozenset({
    "accept", "accept-charset", "accept-encoding", "accept-language", "accept-ranges", "age", "alt-svc",
    "cache-control", "connection", "content-disposition", "content-encoding", "content-language",
    "content-length", "content-location", "content-range", "content-type", "date", "expect", "forwarded",
    "from", "host", "http2-settings", "idempotency-key", "keep-alive", "max-forwards", "origin", "pragma",
    "range", "referer", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "via", "warning",
    "x-http-method", "x-http-method-override", "x-method-override",
})  # fmt: skip
# Of what an application makes of a secret, shorter ones are a date or a name, and may stand anywhere.
LEAST_MADE = 16
APART = re.compile(r"[\s,;=\"]+")
"""A header's value has parts: a scheme and what stands behind it, `Signature="..."`."""
STAND_IN = "[credential]"
_NOT_FAMILIES = ("proxy-", "sec-", "if-", "access-control-", "x-forwarded-")


def check_header(name: str) -> None:
    """Raises Poison where a header is no place for a credential."""
    if not TOKEN.fullmatch(name):
        raise Poison(f"{name[:64]!a} is not a header's name: 1 to 64 letters, digits or signs of a token.")
    if name.lower() in _NOT_CREDENTIALS or name.lower().startswith(_NOT_FAMILIES):
        raise Poison(f"The header {name} says how a request travels: name one that is a credential, such as X-API-Key.")


def authorization(auth: ToolAuth, secret: SecretStr | None) -> dict[str, str]:
    """The header that carries the credential."""
    if secret is None:
        return {}
    text = secret.reveal()
    if not (text.isascii() and text.isprintable()):
        raise Poison("The credential is not printable ASCII, so no header can carry it: register the tool again.")
    match auth.kind:
        case "bearer":
            return {"Authorization": f"Bearer {text}"}
        case "basic":
            return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}
        case "api_key" | "header" if auth.header or auth.kind == "api_key":
            header = auth.header or "X-API-Key"
            check_header(header)
            return {header: text}
    raise Poison(
        f"A tool's auth has kind {auth.kind[:20]!a}: bearer, basic, api_key or header (with its name) are known, and "
        "what the application of this bridge adds."
    )


def without(secret: SecretStr | None, body: str, sent: Iterable[str] = ()) -> str:
    """A tool that repeats its credential must not carry it into the log. `sent`: what was made of it for one call."""
    if secret is None:
        return body
    encoded = base64.b64encode(secret.reveal().encode()).decode()
    parts = [part for part in (secret.reveal(), encoded, *secret.reveal().split(":", 1)[1:]) if part]
    parts += [each for value in sent for each in (value, *APART.split(value)) if len(each) >= LEAST_MADE]
    for form in sorted({form for part in parts for form in _written(part)}, key=len, reverse=True):
        body = body.replace(form, STAND_IN)
    return body


def _written(text: str) -> Iterator[str]:
    """As it is, and as JSON, HTML or a URL has it. Some JSON gives each sign that HTML knows, or `+`, a code."""
    yield text
    for as_json in (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        yield as_json
        yield as_json.replace("/", "\\/")
    plain = json.dumps(text)[1:-1].replace('\\"', '"')
    for signs in ("<>&", "<>&'\"+`", "<>&'\"+`/="):
        yield (coded := "".join(f"\\u{ord(each):04x}" if each in signs else each for each in plain))
        yield re.sub(r"\\u[0-9a-f]{4}", lambda code: "\\u" + code[0][2:].upper(), coded)
    yield from (html.escape(text), html.escape(text, quote=False), html.escape(text).replace("&#x27;", "&#39;"))
    for safe in ("", "/"):
        yield from (quoted := (quote(text, safe=safe), quote_plus(text, safe=safe)))
        yield from (re.sub("%..", lambda code: code[0].lower(), each) for each in quoted)
