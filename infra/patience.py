"""How long a connection may keep us waiting: uvicorn's own limit is of the time between two requests alone."""

import time
from dataclasses import dataclass
from typing import Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

Phase = Literal["idle", "head", "body", "answer"]


@dataclass(frozen=True)
class Patience:
    """Seconds for a request's head, and for its body; `answer_s` is how long a client may take less than `answer_bytes`
    of an answer that waits for it."""

    head_s: float = 10.0
    body_s: float = 35.0
    """Longer than the app's own, which answers."""
    answer_s: float = 30.0
    answer_bytes: int = 32 * 1024


class Connection(H11Protocol):
    """Answers in the app's own form what is no HTTP, and ends when it is kept waiting. The server looks at it once a
    second, so that requests pay nothing."""

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

    def send_400_response(self, msg: str) -> None:
        self._refuse(400)

    def _phase_now(self) -> Phase:
        if self.transport.get_write_buffer_size():
            return "answer"
        if self.conn.their_state is h11.SEND_BODY:
            return "body"
        # Between two requests uvicorn's own limit holds, until something comes.
        request: object = self.cycle
        begun = request is None or bool(self.conn.trailing_data[0])
        return "head" if self.conn.their_state is h11.IDLE and begun else "idle"

    def _end_unread(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse(408)
        else:
            self.transport.close()

    def _refuse(self, status: Literal[400, 408]) -> None:
        unread = getattr(getattr(self.config.app, "state", None), "unread", None)
        headers, body = unread(status) if unread else ([(b"connection", b"close")], b"")
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            sent = [h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()]
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in sent))
        self.transport.close()
