"""Serves status, health and metrics on ``status.listen``: read-only, bounded, and safe from DNS rebinding."""

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
from pomagent.listeners.rebinding import REBIND_FIRST_S, keep_binding
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.deadline import Clock
from pomagent.runtime.threads import Threads
from pomagent.sessions.user_names import Users
from pomagent.settings import HostPort, ListenKey, Settings
from pomagent.transport.peer_uid import user_of
from pomagent.transport.sock_diag import SockDiag

MAX_CONNECTIONS = 32
"""Maximum simultaneous connections. One more closes the oldest, which has had longer than any request needs."""
REQUEST_TIMEOUT_S = 10.0
"""Maximum seconds for a request and its response, however slowly they arrive."""
REFUSAL_LOG_INTERVAL_S = 60.0
"""Minimum seconds between two log lines for the same reason of refusal, so that clients cannot fill the log."""

FOREIGN_NAME = "use this machine's own name, its address or localhost: the request names another host\n"
CROSS_SITE = "open this address yourself: another website sent the request through your browser\n"
NO_BODY = "send the request without a body\n"
NOT_ALLOWED = "status.allow_users does not name you; anyone may use /livez, /startupz and /readyz\n"


class StatusServer:
    """Serves one address at a time, or none. ``moving_to`` makes a change of address part of a reload."""

    def __init__(
        self, resources: StatusResources, diag: SockDiag | None, users: Users, log: Logger,
        clock: Clock = time.monotonic, store: FdStore | None = None, gate: Event | None = None,
    ) -> None:  # fmt: skip
        """``store`` holds sockets inherited from another process. Connections are accepted while ``gate`` is set."""
        self._store = store
        self._gate = gate
        self._resources = resources
        self._diag = diag
        self._users = users
        self._log = log.bind(serves="status")
        self._clock = clock
        self._threads = Threads(1)  # reads /proc when an address is in use
        self._requested: HostPort | None = None
        self._listener: Listener | None = None
        self._allowed: tuple[str, ...] = ()
        self._rebinding = Group()
        self._connections: dict[gevent.Greenlet, None] = {}
        self._logged_at: dict[str, float] = {}
        self._names = _own_names()

    @property
    def address(self) -> object:
        """The address with the port that the kernel chose, or None if the server does not listen."""
        return self._listener.address if self._listener else None

    @contextmanager
    def moving_to(self, settings: Settings, *, is_start: bool) -> Iterator[None]:
        """Move to the settings' address when the block ends, or stay at the old one if it raises. Blocks.

        If the address is not available, a start retries it later, and a reload raises ConfigError.
        """
        address = settings.status.listen
        fresh, failure = None, None
        if address is not None and address != self._requested:
            try:
                fresh = self._bind(address)
            except BindError as error:
                if owner := self._threads.call(owner_of, address):
                    error.held_by(owner)
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
        if address != self._requested:
            self._switch_to(address, fresh, failure)

    @property
    def shared(self) -> list[Inherited]:
        """The listening socket, if open, to hand to a new process."""
        return [self._listener.inheritable(_key(self._listener.requested))] if self._listener else []

    def leave(self) -> None:
        """Stop listening, and leave the socket to the new process. Blocks briefly."""
        self._rebinding.kill()
        if self._listener is not None:
            self._listener.stop(keep_socket=True, serve_waiting=False)
            self._listener = None

    def close(self) -> None:
        """Stop listening and answering. Blocks for 1 s at most."""
        self._rebinding.kill()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        gevent.killall(list(self._connections), timeout=1)

    def _bind(self, address: HostPort) -> Listener:
        inherited = self._store.claim(_key(address), address) if self._store else None
        return Listener(address, self._log, [self._listener.sock] if self._listener else [], inherited, self._gate)

    def _switch_to(self, address: HostPort | None, fresh: Listener | None, failure: BindError | None) -> None:
        self._rebinding.kill()
        old, self._requested = self._listener, address
        self._take(fresh)
        if old is not None:
            old.close()
        if failure is not None and address is not None:
            self._log.error(events.LISTENER_BIND_FAILED, listen=str(address), error=str(failure),
                            retry_in_ms=round(REBIND_FIRST_S * 1000))  # fmt: skip
            self._rebinding.spawn(keep_binding, lambda _: self._rebind(address)).name = f"status server {address}"

    def _take(self, listener: Listener | None) -> None:
        self._listener = listener
        if listener is not None:
            listener.deliver_to("", self._accept)

    def _rebind(self, address: HostPort) -> bool:
        """Try to bind once, without another log line, and return whether to go on."""
        with suppress(BindError):
            self._take(self._bind(address))
            return False
        return True

    # --- connections ----------------------------------------------------------------------------------------------

    def _accept(self, sock: socket.socket, peer: str) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]  # at once, so that of many new connections each closes a different one
            oldest.kill(block=False)
        connection = gevent_socket.socket(fileno=sock.detach())
        greenlet = gevent.Greenlet(self._serve, connection, peer)
        greenlet.name = f"status request from {peer}"
        greenlet.rawlink(lambda ended: self._forget(ended, connection))
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
        except Exception:  # noqa: BLE001 - the crash boundary of this request: the client still gets a response
            gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())
            return text_response(HTTPStatus.INTERNAL_SERVER_ERROR, "the request met a bug in the agent; see its log\n")

    def _refusal(self, request: HttpRequest, peer: str) -> HttpResponse | None:
        if request.host and not is_own_name(request.host, self._names):
            self._log_refusal("the request names another host", peer)
            return text_response(HTTPStatus.MISDIRECTED_REQUEST, FOREIGN_NAME)
        if is_cross_site(request):
            self._log_refusal("another website sent the request through a browser", peer)
            return text_response(HTTPStatus.FORBIDDEN, CROSS_SITE)
        if request.method not in METHODS:
            allowed = {"Allow": ", ".join(METHODS)}
            return HttpResponse(HTTPStatus.METHOD_NOT_ALLOWED, b"read-only: GET or HEAD\n", headers=allowed)
        return text_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, NO_BODY) if request.has_body else None

    def _show(self, request: HttpRequest, sock: gevent_socket.socket, peer: str) -> HttpResponse:
        resource = self._resources.find(request.path)
        if resource is None:
            return text_response(HTTPStatus.NOT_FOUND, f"expected one of {', '.join(self._resources.paths)}\n")
        if not self._may_see(resource, sock):
            self._log_refusal("status.allow_users does not name this user", peer)
            return text_response(HTTPStatus.FORBIDDEN, NOT_ALLOWED)
        return resource.show(request)

    def _may_see(self, resource: Resource, sock: gevent_socket.socket) -> bool:
        """Whether the client's user may see the resource. Root always may, since root can become any user."""
        if not resource.is_private or not self._allowed:
            return True
        uid = user_of(sock, self._diag)
        return uid == 0 or self._users.allows(self._allowed, uid)

    def _log_refusal(self, reason: str, peer: str) -> None:
        now = self._clock()
        if now - self._logged_at.get(reason, float("-inf")) >= REFUSAL_LOG_INTERVAL_S:
            self._logged_at[reason] = now
            self._log.warning(events.STATUS_REFUSED, why=reason, peer=peer)


def _key(address: object) -> ListenKey:
    """Return the key of the status socket among those handed to a new process. No route has such a name."""
    return str(address), "@status"


def _own_names() -> frozenset[str]:
    """Return this machine's full and short host name, without a DNS query."""
    full = socket.gethostname().rstrip(".").lower()
    return frozenset({full, full.partition(".")[0]} - {""})
