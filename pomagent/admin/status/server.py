"""Serves health and metrics on ``status.listen``: read-only, bounded, and to nobody who calls us by another's name."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus

import gevent
from gevent import socket as gevent_socket
from gevent.event import Event
from gevent.pool import Group

from pomagent.admin.status.http import (
    METHODS,
    HttpRequest,
    HttpResponse,
    is_cross_site,
    is_own_name,
    serve_request,
    text_response,
)
from pomagent.admin.status.resources import Resource, StatusResources
from pomagent.errors import BindError, ConfigError
from pomagent.listeners.fd_store import FdStore
from pomagent.listeners.inherited import Inherited
from pomagent.listeners.listener import Listener
from pomagent.listeners.port_owner import owner_of
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.deadline import Clock
from pomagent.runtime.threads import Threads
from pomagent.sessions.peer_uid import user_of
from pomagent.sessions.user_names import Users
from pomagent.settings import HostPort, ListenKey, Settings
from pomagent.transport.sock_diag import SockDiag

MAX_CONNECTIONS = 32
"""At a time: probes and a scraper or two. Above, the oldest gives way: it has had longer than any of them needs."""
REQUEST_TIMEOUT_S = 10.0
"""For a whole request and its answer, however it trickles."""
REBIND_FIRST_S, REBIND_MAX_S = 1.0, 30.0
"""Between tries to bind an address that was taken at start."""
REFUSAL_LOG_INTERVAL_S = 60.0
"""A refusal is logged so often at most, for each reason: whoever asks must not fill the log."""

FOREIGN_NAME = "the request names another host; ask for this machine by its own name, its address or localhost\n"
FROM_ELSEWHERE = "another website asks through your browser; open this address yourself\n"
NO_BODY = "a request has no body here\n"
NOT_FOR_YOU = "status.allow_users does not name you; health answers everyone: /livez, /startupz, /readyz\n"


class StatusServer:
    """One address at a time, or none; ``moving_to`` makes a change of it part of a reload."""

    def __init__(
        self, site: StatusResources, diag: SockDiag | None, users: Users, log: Logger, clock: Clock = time.monotonic,
        store: FdStore | None = None, gate: Event | None = None,
    ) -> None:  # fmt: skip
        """Sockets that another process has opened for it are in ``store``; it answers while ``gate`` is set."""
        self._store = store
        self._gate = gate
        self._site = site
        self._diag = diag
        self._users = users
        self._log = log.bind(serves="status")
        self._clock = clock
        self._threads = Threads(1)  # /proc, after an address was taken
        self._asked: HostPort | None = None
        self._listener: Listener | None = None
        self._allowed: tuple[str, ...] = ()
        self._binding = Group()
        self._connections: dict[gevent.Greenlet, None] = {}
        self._logged_at: dict[str, float] = {}
        self._names = _own_names()

    @property
    def address(self) -> object:
        """Where it listens, None if it does not."""
        return self._listener.address if self._listener else None

    @contextmanager
    def moving_to(self, settings: Settings, *, is_start: bool) -> Iterator[None]:
        """Listen where the settings say, from the end of the block on; as before if it raises. Blocks.

        An address that is not available is retried after a start; at a reload it raises ConfigError.
        """
        wanted = settings.status.listen
        fresh, failure = None, None
        if wanted is not None and wanted != self._asked:
            try:
                fresh = self._bind(wanted)
            except BindError as error:
                if holder := self._threads.call(owner_of, wanted):
                    error.held_by(holder)
                if not is_start:
                    raise ConfigError([settings.problem("status.listen", str(error))]) from error
                failure = error
        try:
            yield
        except BaseException:
            if fresh is not None:
                fresh.close()
            raise
        self._allowed = settings.status.allow_users
        if wanted != self._asked:
            self._go_over(wanted, fresh, failure)

    @property
    def shared(self) -> list[Inherited]:
        """Its socket, if it has one, for a successor of this process."""
        return [self._listener.inheritable(_key(self._listener.requested))] if self._listener else []

    def leave(self) -> None:
        """Stop listening: a successor goes on with the socket. Blocks for a moment."""
        self._binding.kill()
        if self._listener is not None:
            self._listener.stop(keep_socket=True, serve_waiting=False)
            self._listener = None

    def close(self) -> None:
        """Stop listening and answering. Blocks for a moment."""
        self._binding.kill()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        gevent.killall(list(self._connections), timeout=1)

    def _bind(self, address: HostPort) -> Listener:
        inherited = self._store.claim(_key(address), address) if self._store else None
        return Listener(address, self._log, [self._listener.sock] if self._listener else [], inherited, self._gate)

    def _go_over(self, wanted: HostPort | None, fresh: Listener | None, failure: BindError | None) -> None:
        self._binding.kill()
        old, self._asked = self._listener, wanted
        self._take(fresh)
        if old is not None:
            old.close()
        if failure is not None and wanted is not None:
            self._log.error(events.LISTENER_BIND_FAILED, listen=str(wanted), error=str(failure),
                            retry_in_ms=round(REBIND_FIRST_S * 1000))  # fmt: skip
            self._binding.spawn(self._try_again, wanted).name = f"status server {wanted}"

    def _take(self, listener: Listener | None) -> None:
        self._listener = listener
        if listener is not None:
            listener.deliver_to("", self._accept)

    def _try_again(self, wanted: HostPort) -> None:
        pause_s = REBIND_FIRST_S
        while True:
            gevent.sleep(pause_s)
            with suppress(BindError):  # it was said once
                self._take(self._bind(wanted))
                return
            pause_s = min(REBIND_MAX_S, pause_s * 2)

    # --- connections ----------------------------------------------------------------------------------------------

    def _accept(self, sock: socket.socket, peer: str) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]  # at once: of many that arrive together each sends another one away
            oldest.kill(block=False)
        waiting = gevent_socket.socket(fileno=sock.detach())
        greenlet = gevent.Greenlet(self._serve, waiting, peer)
        greenlet.name = f"status request of {peer}"
        greenlet.rawlink(lambda ended: self._forget(ended, waiting))
        self._connections[greenlet] = None
        greenlet.start()

    def _forget(self, greenlet: gevent.Greenlet, sock: gevent_socket.socket) -> None:
        self._connections.pop(greenlet, None)
        sock.close()

    def _serve(self, sock: gevent_socket.socket, peer: str) -> None:
        with gevent.Timeout(REQUEST_TIMEOUT_S, False), suppress(OSError):
            serve_request(sock, lambda request: self._answer(request, sock, peer))

    def _answer(self, request: HttpRequest, sock: gevent_socket.socket, peer: str) -> HttpResponse:
        try:
            return self._refusal(request, peer) or self._show(request, sock, peer)
        except Exception:  # noqa: BLE001 - the crash boundary of this request: whoever asked still gets an answer
            gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())
            return text_response(HTTPStatus.INTERNAL_SERVER_ERROR, "this met a bug of the agent; see its log\n")

    def _refusal(self, request: HttpRequest, peer: str) -> HttpResponse | None:
        if request.host and not is_own_name(request.host, self._names):
            self._log_refusal("the request names another host", peer)
            return text_response(HTTPStatus.MISDIRECTED_REQUEST, FOREIGN_NAME)
        if is_cross_site(request):
            self._log_refusal("another website asks through a browser", peer)
            return text_response(HTTPStatus.FORBIDDEN, FROM_ELSEWHERE)
        if request.method not in METHODS:
            allowed = {"Allow": ", ".join(METHODS)}
            return HttpResponse(HTTPStatus.METHOD_NOT_ALLOWED, b"read-only: GET or HEAD\n", headers=allowed)
        return text_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, NO_BODY) if request.has_body else None

    def _show(self, request: HttpRequest, sock: gevent_socket.socket, peer: str) -> HttpResponse:
        resource = self._site.find(request.path)
        if resource is None:
            return text_response(HTTPStatus.NOT_FOUND, f"there are {', '.join(self._site.paths)}\n")
        if not self._may_see(resource, sock):
            self._log_refusal("status.allow_users does not name this user", peer)
            return text_response(HTTPStatus.FORBIDDEN, NOT_FOR_YOU)
        return resource.show(request)

    def _may_see(self, resource: Resource, sock: gevent_socket.socket) -> bool:
        """Root may: it could become any of the users."""
        if not resource.is_private or not self._allowed:
            return True
        uid = user_of(sock, self._diag)
        return uid == 0 or self._users.allows(self._allowed, uid)

    def _log_refusal(self, why: str, peer: str) -> None:
        now = self._clock()
        if now - self._logged_at.get(why, float("-inf")) >= REFUSAL_LOG_INTERVAL_S:
            self._logged_at[why] = now
            self._log.warning(events.STATUS_REFUSED, why=why, peer=peer)


def _key(address: object) -> ListenKey:
    """Of its socket among all that one process hands to another: no route has such a name."""
    return str(address), "@status"


def _own_names() -> frozenset[str]:
    """What this machine calls itself, in full and in short, without asking the DNS."""
    full = socket.gethostname().rstrip(".").lower()
    return frozenset({full, full.partition(".")[0]} - {""})
