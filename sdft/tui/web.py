"""`sdft watch --web`: the dashboard in a browser of this machine.

textual-serve starts one dashboard for each page and carries keys and screens over a websocket. It
listens on the loopback address only, and lets nobody in who lacks the token of the printed link:
other users of the machine, and web pages that try the port, are refused.
"""

from __future__ import annotations

import hmac
import secrets
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from sdft.errors import EnvironmentFault
from sdft.shell import shell_line

HOST = "127.0.0.1"
COOKIE = "sdft_token"

_Handler = Callable[[Any], Awaitable[Any]]


def serve(runs: Sequence[Path], options: Sequence[str], *, port: int) -> None:
    """Serve the dashboard of `runs` until Ctrl-C.

    Raises: EnvironmentFault where textual-serve is missing or the port is taken.
    """
    words = [sys.executable, "-m", "sdft", "watch", *options, "--graphics=blocks", "--"]
    token = secrets.token_urlsafe(24)
    server = build_server(shell_line([*words, *map(str, runs)]), port=port, token=token)
    print(f"open {link(port, token)}   (Ctrl-C ends it; the run goes on)", file=sys.stderr)  # noqa: T201
    try:
        server.serve()
    except OSError as error:
        raise EnvironmentFault(
            what=f"port {port} cannot be used: {error.strerror or error}",
            fix="choose another --port",
        ) from error


def link(port: int, token: str) -> str:
    return f"http://{HOST}:{port}/?token={token}"


def build_server(command: str, *, port: int, token: str) -> Any:
    """Return textual-serve's server with our gate in front."""
    try:
        serving = import_module("textual_serve.server")
    except ImportError as error:
        raise EnvironmentFault(
            what="--web needs textual-serve", fix="pip install 'sdft-trainer[web]'"
        ) from error

    class GatedServer(serving.Server):  # type: ignore[name-defined,misc]
        async def _make_app(self) -> Any:
            app = await super()._make_app()
            app.middlewares.append(gate(port=port, token=token))
            return app

        async def on_startup(self, app: Any) -> None:
            """Print nothing: the link with the token stands there already."""

    return GatedServer(command, host=HOST, port=port, title="sdft watch")


def gate(*, port: int, token: str) -> Any:
    """Return aiohttp middleware that lets in who has the token, by link or cookie.

    The page is kept from loading anything from other hosts: textual-serve's asks for a font there.
    """
    web = import_module("aiohttp.web")
    policy = (
        f"default-src 'self'; connect-src 'self' ws://{HOST}:{port}; img-src 'self' data:;"
        " style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'"
    )

    async def check(request: Any, handler: _Handler) -> Any:
        by_link = request.query.get("token", "")
        given = by_link or request.cookies.get(COOKIE, "")
        # A page of another site that points its own name at this address has that name as host.
        if request.host != f"{HOST}:{port}" or not hmac.compare_digest(
            given.encode(), token.encode()
        ):
            return web.Response(status=403, text="open the link that sdft watch --web printed")
        response = await handler(request)
        if not response.prepared:
            response.headers["Content-Security-Policy"] = policy
            if by_link:
                response.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
        return response

    return web.middleware(check)
