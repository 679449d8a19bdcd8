"""The server of the label page: this machine alone, one token, and nothing but its own routes.

It listens on 127.0.0.1. Every address begins with a random token. What comes with another
``Host`` (a name that was made to point here), from another ``Origin`` (a page of somebody else)
or without the token is answered with 403 and no content. Files are never looked up by name: the
three of the page are held in memory, and pictures are made from numbers.
"""

from __future__ import annotations

import json
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from wsltool.errors import ExtraMissingError, Interrupted, UsageError, WslError
from wsltool.views.label_queue import ASSETS, PAGE_NAME, SCRIPT_NAME, read_asset

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LabelDesk", "check_label_extra", "label_app", "serve_desk"]

MAX_BODY_BYTES: Final = 4096

_HOST: Final = "127.0.0.1"
_PLAIN_PORT: Final = 80
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class LabelDesk(Protocol):
    """What the page is about; called from threads, several at a time."""

    def script(self) -> str:
        """Return the script that hands the page its queue and the answers so far."""

    def picture(self, name: str) -> bytes | None:
        """Return the strip of that name, or None where there is none."""

    def answer(self, given: object) -> dict[str, Any]:
        """Keep an answer on disk, or take one back; return what to tell the page.

        Raises
        ------
        WslError, OSError
            It is not on disk; the page shows the message and stays.
        """


def check_label_extra() -> None:
    """Raise ExtraMissingError where the server's packages are not installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ExtraMissingError(
            f"label: {error.name} is not installed, and it serves the page. "
            'Run: pip install "wsltool[label]"'
        ) from error


def serve_desk(desk: LabelDesk, *, port: int, opened: Callable[[str], None]) -> None:
    """Serve the page until somebody presses Finish or Ctrl-C.

    Parameters
    ----------
    desk
        What is asked, and where answers go.
    port
        0 takes a free one.
    opened
        Hears the address, token included, once it answers.

    Raises
    ------
    ExtraMissingError
        starlette or uvicorn are not installed.
    UsageError
        The port is taken.
    Interrupted
        SIGTERM came; every answer that the page was told of is on disk.
    """
    check_label_extra()
    token = secrets.token_urlsafe(32)
    with _listening(port) as listener:
        port = int(listener.getsockname()[1])
        server = _server(label_app(desk, token, port, lambda: _stop(server)))
        url = f"http://{_HOST}:{port}/{token}/"
        with _stopped_by_signals(server) as numbers:
            threading.Thread(target=_tell, args=(server, opened, url), daemon=True).start()
            server.run(sockets=[listener])
        if signal.SIGTERM in numbers:
            raise Interrupted(signal.SIGTERM)


def _tell(server: uvicorn.Server, opened: Callable[[str], None], url: str) -> None:
    """Hand out the address: connections queue up from now on."""
    if not server.should_exit:
        opened(url)


def _stop(server: uvicorn.Server) -> None:
    server.should_exit = True


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
        except OSError as error:
            raise UsageError(
                f"--port {port}: {error.strerror}; expected a free port. Leave it out, or name "
                "another."
            ) from error
        listener.listen(128)
        yield listener


@contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM end the server in good order; yield which of them came."""
    numbers: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield numbers
        return

    def stop(number: int, frame: object) -> None:
        numbers.append(number)
        _stop(server)

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield numbers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _server(app: ASGIApp) -> uvicorn.Server:
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Leave the signals alone: `_stopped_by_signals` has them."""
            yield

    return Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=64,
            timeout_graceful_shutdown=5,
        )
    )


def label_app(desk: LabelDesk, token: str, port: int, finish: Callable[[], None]) -> ASGIApp:
    """Return the application: the routes of the page behind its guard.

    Parameters
    ----------
    desk
        What is asked.
    token
        First part of every path.
    port
        Which ``Host`` and ``Origin`` are ours.
    finish
        Called when the person is done, after the answer is on its way.
    """
    return _Guard(_routes(desk, token, finish), token, port)


def _routes(desk: LabelDesk, token: str, finish: Callable[[], None]) -> Starlette:
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Mount, Route, Router

    assets = {name: read_asset(name) for name in ASSETS}

    async def asset(request: Request) -> Response:
        name = request.path_params.get("name", PAGE_NAME)
        if name == SCRIPT_NAME:
            script = await run_in_threadpool(_script, desk)
            return Response(script, media_type="text/javascript")
        if name not in assets:
            return Response(status_code=404)
        return Response(assets[name], media_type=ASSETS[name])

    async def picture(request: Request) -> Response:
        name = request.path_params["name"]
        content = await run_in_threadpool(desk.picture, name)
        if content is None:
            return Response(status_code=404)
        return Response(content, media_type=f"image/{'png' if name.endswith('png') else 'jpeg'}")

    async def answer(request: Request) -> Response:
        try:
            given = json.loads(await request.body())
            told = await run_in_threadpool(desk.answer, given)
        except (ValueError, RecursionError, OSError, WslError) as error:
            wrong = not isinstance(error, OSError)
            return JSONResponse({"error": _told(error)}, 400 if wrong else 500)
        return JSONResponse(told)

    async def done(request: Request) -> Response:
        return JSONResponse({}, background=BackgroundTask(finish))

    own = [
        Route("/", asset),
        Route("/answer", answer, methods=["POST"]),
        Route("/finish", done, methods=["POST"]),
        Route("/pictures/{name}", picture),
        Route("/{name}", asset),
    ]
    return Starlette(routes=[Mount(f"/{token}", app=Router(own, redirect_slashes=False))])


def _script(desk: LabelDesk) -> str:
    """Return the page's script; where there is none, one that says why."""
    try:
        return desk.script()
    except WslError as error:
        return f"document.querySelector('main').prepend({json.dumps(_told(error))});\n"


def _told(error: Exception) -> str:
    """Return one line for the person at the page."""
    if isinstance(error, OSError) and not isinstance(error, WslError):
        return f"{error.filename or 'labels'}: {error.strerror or error}"
    return str(error).split("\n", 1)[0] or type(error).__name__


class _Guard:
    """Turns away what is not from our page, and what is too big; adds the headers."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token.encode()
        shown = "" if port == _PLAIN_PORT else f":{port}"  # browsers leave that one out
        self._hosts = {f"{name}{shown}" for name in (_HOST, "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.responses import Response

        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(key.encode(), value.encode()) for key, value in _HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *more]
            await send(message)

        if not self._is_ours(scope):
            await Response(status_code=403)(scope, receive, send_guarded)
            return
        body = await _read_body(scope, receive)
        if body is None:
            await Response(status_code=413, headers={"connection": "close"})(
                scope, receive, send_guarded
            )
            return

        async def receive_read() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_read, send_guarded)

    def _is_ours(self, scope: Scope) -> bool:
        """Return whether Host, Origin and the token are right."""
        headers = [(key.lower(), value.decode("latin-1")) for key, value in scope["headers"]]
        hosts = [value for key, value in headers if key == b"host"]
        origins = [value for key, value in headers if key == b"origin"]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return False
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return False
        if not origins and scope["method"] not in ("GET", "HEAD"):
            return False
        first = scope["path"].split("/")[1:2]
        return bool(first) and secrets.compare_digest(first[0].encode(), self._token)


async def _read_body(scope: Scope, receive: Receive) -> bytes | None:
    """Return the body, None if it is longer than `MAX_BODY_BYTES`; no more is held of it."""
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    if not declared.isdigit() or int(declared) > MAX_BODY_BYTES:
        return None
    body = b""
    while True:
        message: Message = await receive()
        if message["type"] != "http.request":
            return body
        body += bytes(message.get("body", b""))
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return body
