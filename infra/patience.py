"""How long a connection may keep us waiting, and how much it may send for nothing: uvicorn's own limit is of the time
between two requests alone."""

import time
from dataclasses import dataclass
from typing import Literal

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

Phase = Literal["idle", "head", "body", "answer"]

LARGEST_HEAD = 32 * 1024
"""In bytes, beyond what came at once; of what stands between and behind the chunks of a body, too."""
PIPELINED = 64
"""So many requests may wait for the answer to the one before them."""


@dataclass(frozen=True)
class Patience:
    """Seconds for a request's head, and for its body; `answer_s` is how long a client may take less than `answer_bytes`
    of an answer that waits for it."""

    head_s: float = 10.0
    body_s: float = 35.0
    """Longer than the app's own, which answers."""
    answer_s: float = 30.0
    answer_bytes: int = 32 * 1024


class Connection(HttpToolsProtocol):
    """Answers in the app's own form what is no HTTP, and ends when it is kept waiting. The server looks at it once a
    second, so that requests pay nothing."""

    _reading: Phase = "head"
    # Bytes that came since the parser last had something to tell.
    _unread: int = 0
    _is_broken: bool = False
    _before: RequestResponseCycle | None = None

    _phase: Phase = "idle"
    _request: object = None
    _since: float = 0.0
    _waiting: int = 0

    def look(self, patience: Patience) -> None:
        phase, now = self._phase_now(), time.monotonic()
        waiting = self.transport.get_write_buffer_size()
        taken = phase == "answer" and self._waiting - waiting >= patience.answer_bytes
        if (phase, self.cycle) != (self._phase, self._request) or taken:
            self._phase, self._request, self._since, self._waiting = phase, self.cycle, now, waiting
            return
        waited = now - self._since
        if phase == "head" and waited > patience.head_s:
            self._end_unread()
        elif (phase == "body" and waited > patience.body_s) or (phase == "answer" and waited > patience.answer_s):
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return
        if self._reading == "idle":
            self._reading = "head"
        self._unread += len(data)
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
            is_sound = self._unread <= LARGEST_HEAD
        except httptools.HttpParserError:
            is_sound = False
        if not is_sound:
            self._break()

    def on_headers_complete(self) -> None:
        version, hosts = self.parser.get_http_version(), 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and (version == "1.0" or value.lower() != b"chunked"):
                raise ValueError("how long the body is can't be told for sure")
        # What is raised here, the parser raises as an error of its own.
        if version not in ("1.0", "1.1") or hosts > 1 or (version == "1.1" and not hosts):
            raise ValueError("no HTTP/1")
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many at once")
        if self.parser.should_upgrade():
            return  # it is read once more
        self._reading, self._unread, self._before = "body", 0, self.cycle
        super().on_headers_complete()
        # What follows a body in chunks is not to become the headers of a request that was let in without it.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._reading == "body":
            self._reading, self._unread = "idle", 0
            super().on_message_complete()

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # We offer none, so the request is as one that does not ask. The parser took its body for what comes after.
            method, version = self.parser.get_method(), self.parser.get_http_version().encode()
            if method == b"CONNECT":
                raise httptools.HttpParserError("no proxy") from None
            [end] = upgrade.args
            headers = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
            head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(headers))
            self.parser = httptools.HttpRequestParser(self)
            self._parse(head + data[end:])

    def _phase_now(self) -> Phase:
        if self.transport.get_write_buffer_size():
            return "answer"
        # Between two requests uvicorn's own limit holds, until something comes; what waits for its turn may.
        waits = self.pipeline or (self._reading == "head" and self._in_hand())
        return "idle" if waits else self._reading

    def _in_hand(self) -> RequestResponseCycle | None:
        """The last request that came, if it is not answered yet."""
        cycle: RequestResponseCycle | None = self.cycle
        return None if cycle is None or cycle.response_complete else cycle

    def _end_unread(self) -> None:
        if self._unread:
            self._refuse(408)
        else:
            self.transport.close()

    def _break(self) -> None:
        """After what is no HTTP nothing can be read. What came whole before it is done, so its answer must be told."""
        self._is_broken = True
        in_hand = self._in_hand()
        if in_hand is not None and in_hand.more_body and self.pipeline:
            self.pipeline.popleft()  # its turn will not come
            in_hand = self._before
        if in_hand is not None and not in_hand.more_body:
            in_hand.keep_alive = False
        elif in_hand is None or not in_hand.response_started:
            self._refuse(400)
        else:
            self.transport.close()

    def _refuse(self, status: Literal[400, 408]) -> None:
        unread = getattr(getattr(self.config.app, "state", None), "unread", None)
        headers, body = unread(status) if unread else ([(b"connection", b"close")], b"")
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.transport.close()
