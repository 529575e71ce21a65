"""A proxy on 127.0.0.1 that stands before an HTTP server and lets requests fail, as a busy or broken provider does."""

import http.client
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
_BODY = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>A fault of this test.</Message></Error>"
STATUSES = {500: b"InternalError", 503: b"SlowDown", 429: b"TooManyRequests", 403: b"AccessDenied"}


@dataclass(frozen=True)
class Rule:
    """What goes wrong.

    Attributes
    ----------
    act : a status of `STATUSES`, answered in place of the server; `refuse` (the connection ends before the server
        hears of the request), `forget` (the server does what it is asked, and its answer is lost) or `tear` (the
        answer ends in its midst).
    applies : to which requests, by method and path.
    """

    act: int | str
    applies: Callable[[str, str], bool]


class FaultyProxy:
    """The proxy, for the time of a `with` block.

    Attributes
    ----------
    rule : what goes wrong now; None lets everything pass.
    made : how often each fault was made.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.rule: Rule | None = None
        self.made: Counter[int | str] = Counter()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        """URL of the proxy."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def act_on(self, method: str, path: str) -> int | str | None:
        """What goes wrong with a request; None if nothing does."""
        rule = self.rule
        if rule is None or not rule.applies(method, path):
            return None
        self.made[rule.act] += 1
        return rule.act

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        act = self.proxy.act_on(self.command, self.path)
        if act == "refuse":
            self.close_connection = True
        elif isinstance(act, int):
            self._answer(act, [("Content-Type", "application/xml")], _BODY % STATUSES[act])
        else:
            self._pass_on(body, act)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve  # noqa: N815 -- as the base class calls them

    def _pass_on(self, body: bytes, act: str | None) -> None:
        upstream = http.client.HTTPConnection(self.proxy.upstream, timeout=60)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers))  # Host too: it is signed
            answer = upstream.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self.close_connection = True
            return
        finally:
            upstream.close()
        if act == "forget":
            self.close_connection = True
            return
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
        length = answer.getheader("Content-Length", str(len(content)))
        self._answer(answer.status, headers, content[: len(content) // 2] if act == "tear" else content, length)
        self.close_connection |= act == "tear"

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, length: str = "") -> None:
        try:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except OSError:
            self.close_connection = True

    def log_message(self, *_told: object) -> None:
        """Say nothing."""
