"""`vantage report --serve`: the runs of a folder as pages that follow them, for this machine alone.

The server is bound to the loopback address and answers only requests that name it as their host, so
that no other machine reaches it, nor a page of another site by a name that leads here. It reads
runs by their names in its own list: no path that is asked for is ever opened.
"""

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from vantage.errors import InputError
from vantage.pages.document import document
from vantage.pages.tables import escaped
from vantage.reporting.folder import Entry, RunsFolder
from vantage.reporting.overview import overview
from vantage.reporting.page import page

ADDRESS, PORT = "127.0.0.1", 8017
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
}


def server(root: Path, port: int | None = None) -> ThreadingHTTPServer:
    """A server of the runs below `root`, not yet started; its `server_port` says where it is.

    Args:
        port: None: 8017, or a free one where that is taken; 0: a free one.

    Raises:
        InputError: no such folder, or the port cannot be had.
    """
    folder = RunsFolder(root)
    try:
        return _Server((ADDRESS, PORT if port is None else port), folder)
    except OSError as error:
        if port is None:
            return _Server((ADDRESS, 0), folder)
        raise InputError(
            f"--port {port}: {error.strerror}; leave it out for a free one."
        ) from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], folder: RunsFolder) -> None:
        super().__init__(address, _Handler)
        self.folder = folder


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "vantage", ""

    def do_GET(self) -> None:
        """Answer with a page, or with JSON."""
        if self.headers.get("Host") not in self._names():
            self._say(HTTPStatus.MISDIRECTED_REQUEST, "This server answers to 127.0.0.1 alone.")
            return
        asked = urlsplit(self.path)
        name = parse_qs(asked.query).get("run", [""])[0]
        folder = self.server.folder
        if asked.path == "/":
            self._send(overview(folder.root), "text/html")
        elif asked.path == "/runs.json":
            self._json({"runs": [entry.line() for entry in folder.runs().values()]})
        elif asked.path in ("/run", "/stamp.json", "/curves.json"):
            entry = folder.run(name)
            if entry is None:
                self._say(HTTPStatus.NOT_FOUND, "There is no run of that name.")
            elif asked.path == "/run":
                self._send(_page(entry), "text/html")
            else:
                self._json({"stamp": entry.stamp} if "stamp" in asked.path else entry.curves())
        else:
            self._say(HTTPStatus.NOT_FOUND, "There is no such page.")

    def _names(self) -> set[str]:
        port = self.server.server_port
        return {f"{name}:{port}" for name in (ADDRESS, "localhost")}

    def _json(self, record: dict[str, Any]) -> None:
        # half of a pair of surrogates has no place in UTF-8; in escapes it has
        self._send(json.dumps(record, allow_nan=False), "application/json")

    def _say(self, status: HTTPStatus, text: str) -> None:
        self._send(text, "text/plain", status)

    def _send(self, text: str, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = text.encode()
        self.send_response(status)
        for header, value in HEADERS.items():
            self.send_header(header, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Nothing: a line for every refresh would bury what is printed."""


def _page(entry: Entry) -> str:
    """The report of a run, which asks for its newer versions; or what is wrong with it."""
    if entry.subject is None:
        return document(entry.name, "", f"<p>{escaped(entry.fault)}</p>")
    live = {"address": f"/stamp.json?run={quote(entry.name, safe='')}", "stamp": entry.stamp}
    return page(entry.subject, entry.path, live)
