"""A report in the browser that follows its runs: served on this machine alone, and made anew when files change."""

from __future__ import annotations

import errno
import hashlib
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from resnext_train.errors import InputError
from resnext_train.report.page.html_report import live_page
from resnext_train.report.report_content import build_report
from resnext_train.report.run_record import find_runs
from resnext_train.run_dir.console import print_warning
from resnext_train.run_dir.run_lock import holder_of
from resnext_train.run_dir.run_paths import RunDir

_HOST = "127.0.0.1"

_NAMES = ("127.0.0.1", "localhost")
"""Names by which a browser may ask: a page elsewhere whose name leads here asks by that name."""

_PORTS_TRIED = 20
_MOST_PORT = 65535


class LiveReport:
    """The page of runs as their files are now. Several threads may ask for it."""

    def __init__(self, paths: Sequence[str | Path], rest: float = 4.0, pictures: bool = True) -> None:
        """Make the first page. A further one is not begun before `rest` times as long as the last one took is over.

        Runs that train beside it log all the time, and need the cores. Without `pictures`, no image of the data is
        shown.

        Raises:
            InputError: a path is no folder, or holds no run.
        """
        self._paths, self._rest, self._pictures = tuple(paths), rest, pictures
        self._lock = threading.Lock()
        self._failed: str | None = None
        self._seen = state_of_files(self._paths)
        self.version, self._content = self._made(self._seen)

    def _made(self, seen: str) -> tuple[str, bytes]:
        began = time.monotonic()
        content = live_page(build_report(self._paths, self._pictures), seen).encode()
        ended = time.monotonic()
        self._next = ended + self._rest * (ended - began)
        return seen, content

    def current(self) -> tuple[str, bytes]:
        """Return the version and the page, made anew if it is time and a file has changed; the last if that fails."""
        with self._lock:
            try:
                seen = state_of_files(self._paths) if time.monotonic() >= self._next else self._seen
                if seen != self._seen:
                    self._seen = seen  # also where it fails: the next try is for the next change
                    self.version, self._content = self._made(seen)
                self._failed = None
            except (InputError, OSError) as error:  # the runs are being moved or removed
                if str(error) != self._failed:
                    self._failed = str(error)
                    print_warning(f"the page stays as it is: {error}")
            return self.version, self._content


def state_of_files(paths: Sequence[str | Path]) -> str:
    """Return a text that changes whenever a file of a run does that a report shows, or a run comes, goes or ends.

    Raises:
        InputError: a path is no folder, or holds no run.
    """
    digest = hashlib.sha256()
    for folder in find_runs(paths):
        run = RunDir(folder)
        files = [run.recipe, run.log, folder / "summary.json", folder / "state.json"]
        with suppress(OSError):
            files += sorted((folder / "evaluation").iterdir())
        digest.update(repr((str(folder), holder_of(run.lock_file) is not None)).encode())
        for file in files:
            with suppress(OSError):
                stat = file.stat()
                digest.update(repr((file.name, stat.st_mtime_ns, stat.st_size)).encode())
    return digest.hexdigest()[:16]


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the page and for its version; there is nothing else, and no file is read by name."""

    server_version, sys_version = "resnext-train", ""
    timeout = 30

    def __init__(self, live: LiveReport, *arguments: Any) -> None:
        self._live = live
        super().__init__(*arguments)  # which answers

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        if not is_own_name(self.headers.get("Host", "")):
            self._send(HTTPStatus.MISDIRECTED_REQUEST, b"this server answers to 127.0.0.1 and localhost\n", with_body)
            return
        path = self.path.partition("?")[0]
        if path not in ("/", "/version"):
            self._send(HTTPStatus.NOT_FOUND, b"there is only the report, at /\n", with_body)
            return
        version, content = self._live.current()
        if path == "/":
            self._send(HTTPStatus.OK, content, with_body, "text/html; charset=utf-8")
        else:
            self._send(HTTPStatus.OK, version.encode(), with_body)

    def _send(
        self, status: HTTPStatus, content: bytes, with_body: bool, kind: str = "text/plain; charset=utf-8"
    ) -> None:
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        with suppress(ConnectionError, TimeoutError):  # the browser has left
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Print no line for each request."""


def is_own_name(host: str) -> bool:
    """Return whether a Host header names this machine as only its own browsers do."""
    try:
        return urlsplit(f"//{host}").hostname in _NAMES
    except ValueError:
        return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing where a browser has left in the midst of its question."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def open_server(live: LiveReport, port: int) -> ThreadingHTTPServer:
    """Return a server of `live` on 127.0.0.1, on `port` or the next one that is free; 0 is any free port.

    Raises:
        InputError: none of the next ports is free, or this user may not use them.
    """
    last = min(port + (_PORTS_TRIED if port else 1) - 1, _MOST_PORT)
    for candidate in range(port, last + 1):
        try:
            return _Server((_HOST, candidate), partial(_Handler, live))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise InputError(f"the report cannot be served on port {candidate}: {error.strerror}") from error
    raise InputError(f"none of the ports {port} to {last} is free for this user; name another one by --port")


def serve(paths: Sequence[str], port: int, pictures: bool = True) -> None:
    """Serve the report of the runs that `paths` are or hold, until Ctrl-C; its address is printed.

    Raises:
        InputError: a path is no folder, or holds no run; or no port is free.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    live = LiveReport(paths, pictures=pictures)
    with open_server(live, port) as server:
        address = f"http://{_HOST}:{server.server_address[1]}/"
        print(f"{address} shows the report, and follows its runs. Ctrl-C ends it.", flush=True)
        server.serve_forever(poll_interval=0.2)
