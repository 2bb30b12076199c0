"""The server of the page: bound to one address, nothing from outside, nothing left behind."""

import importlib
import logging
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from busi_lab.app.desk import Desk
from busi_lab.app.visits import Visits
from busi_lab.classes import BUSI
from busi_lab.data.phantom import generate_phantoms
from busi_lab.errors import UserError, one_line

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; frame-ancestors 'none'; form-action 'self'"
)
"""By which a browser fetches nothing from anywhere else, whatever the page's libraries wish."""


def require_gradio() -> Any:
    """Gradio, told to send nothing to anyone before it is imported.

    Raises:
        UserError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        return importlib.import_module("gradio")
    except ImportError as error:
        raise UserError(f"the page needs Gradio ({one_line(error)[:80]}): pip install 'busi-lab[app]'") from None


def bind(host: str, port: int) -> socket.socket:
    """Take an address, before models are loaded for nothing; port 0 takes a free one.

    Raises:
        UserError: it is in use, or there is no such address here.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(
            f"--host {host} --port {port}: cannot be had ({reason}); choose another port, or 0 for a free one"
        ) from None
    return listener


def serve(
    make_desk: Callable[[Visits], Desk],
    listener: socket.socket,
    host: str,
    most_megabytes: int,
    ready: Callable[[str], Any],
) -> None:
    """Serve until a signal comes.

    Args:
        make_desk: loads the models.
        listener: a bound socket.
        host: as it was asked for.
        most_megabytes: of a file that is sent.
        ready: is told the address when all is loaded.

    Raises:
        UserError: Gradio is not installed, or a model cannot be used.
    """
    with suppress(KeyboardInterrupt), _ended_by_signals(), listener, _temporary_folder() as folder:
        require_gradio()
        application = make_application(
            make_desk(Visits(folder / "visits", folder / "gradio")), folder, host, most_megabytes
        )
        uvicorn = importlib.import_module("uvicorn")
        logging.getLogger("httpx").setLevel(logging.WARNING)
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listener.getsockname()[1]}/")
        settings = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=3, ws="none")
        uvicorn.Server(settings).run(sockets=[listener])


def make_application(desk: Desk, folder: Path, host: str, most_megabytes: int) -> Any:
    """The page as an ASGI application; ``folder`` takes the example scans."""
    gradio = require_gradio()
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from busi_lab.app.page import CSS, SCRIPT, build_page, theme

    root = generate_phantoms(folder / "phantoms", dict.fromkeys(BUSI.names, 1), height=300, width=400)
    phantoms = {name: root / name / f"{name} (1).png" for name in BUSI.names}
    application = FastAPI(openapi_url=None)
    if host in LOOPBACK:  # a page elsewhere whose name resolves to this machine gets nothing
        application.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"])
    application.add_middleware(_Policy)
    return gradio.mount_gradio_app(
        application,
        build_page(desk, phantoms),
        "/",
        max_file_size=f"{most_megabytes}mb",
        theme=theme(),
        css_paths=[CSS],
        head=f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>",
        footer_links=[],
        ssr_mode=False,
        show_error=True,
    )


class _Policy:
    """Sends the policy along with every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = {
                    "content-security-policy": _POLICY,
                    "referrer-policy": "no-referrer",
                }
                if not scope["path"].startswith("/assets/"):
                    added["cache-control"] = "no-store"
                kept = [(name, value) for name, value in message["headers"] if name.decode().lower() not in added]
                message["headers"] = kept + [(name.encode(), value.encode()) for name, value in added.items()]
            await send(message)

        await self._app(scope, receive, send_with_policy if scope["type"] == "http" else send)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that it cleans up; uvicorn raises it anew when it has shut down."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Where Gradio and the visits keep files, for as long as the server runs; others cannot look into it."""
    folder = Path(tempfile.mkdtemp(prefix="busi-app-"))
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
