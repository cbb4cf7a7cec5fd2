"""What keeps the studio on this machine: who may ask, and what its page may load.

The server can start processes, so that another web site, open in the same browser, must not be able to talk to it.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = ("127.0.0.1", "localhost")
# gradio's page has inline scripts and styles, and makes workers and downloads of blobs; nothing is of another host.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-src 'none'; frame-ancestors 'none'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}


def refusal(path: str, headers: Mapping[str, str]) -> str | None:
    """Why a request is refused; None if it is answered.

    >>> own = {"host": "127.0.0.1:7860"}
    >>> refusal("/", own), refusal("/", {**own, "origin": "http://127.0.0.1:7860"})
    (None, None)
    >>> refusal("/", {"host": "rebound.example:7860"})
    'This page is served to this machine alone.'
    >>> refusal("/", {**own, "origin": "http://127.0.0.1:8000"})
    'Another page may not use this one.'
    >>> refusal("/gradio_api/file=https://example.org/a.png", own)
    'Nothing is fetched from other machines.'

    Args:
        path: of the request.
        headers: of the request, with names in lower case.
    """
    host = headers.get("host", "")
    if urlsplit(f"//{host}").hostname not in LOCAL:  # DNS rebinding: a foreign name that leads to this machine
        return "This page is served to this machine alone."
    if (origin := headers.get("origin")) is not None and urlsplit(origin).netloc != host:
        return "Another page may not use this one."
    if "=http:" in path or "=https:" in path or "/proxy=" in path:  # gradio would fetch it
        return "Nothing is fetched from other machines."
    return None


class LocalOnly:
    """ASGI middleware that refuses requests of others, and has the browser refuse whatever is not from here."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if (reason := refusal(scope["path"], Headers(scope=scope))) is not None:
            await PlainTextResponse(reason, 403)(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, with_headers)


def middleware() -> list[Any]:
    """The middleware of the server."""
    from starlette.middleware import Middleware

    return [Middleware(LocalOnly)]
