"""Serves one client from accept to close: admission, tunnel, relay, orderly end, log line."""

from __future__ import annotations

import random

from pomagent.errors import PoolError, Recovery, StreamLost, TunnelError
from pomagent.gateway.tunnel import Presented, Tunnel
from pomagent.log import events
from pomagent.protocol.lifecycle import Reason
from pomagent.runtime.deadline import Deadline
from pomagent.runtime.interrupt import Interrupt
from pomagent.sessions.client import Client
from pomagent.sessions.context import RouteContext, SessionContext
from pomagent.sessions.ends import CLIENT_ABORTED, CLIENT_LOST, CRASHED, GATEWAY_LOST, IDLE, LIFETIME_OVER, End, Side
from pomagent.sessions.facts import SessionFacts
from pomagent.sessions.half_close import HalfClosePolicy
from pomagent.sessions.peer_user import PeerUser
from pomagent.sessions.read_ahead import LAST_BYTES_TIMEOUT_S
from pomagent.sessions.relay import Relay
from pomagent.sessions.session_limit import SessionLimit
from pomagent.sessions.session_log import SessionLog
from pomagent.transport.lingering_close import linger

ADMISSION_TIMEOUT_S = 1.0
"""Maximum seconds a client waits while ``max_sessions`` is reached. Short-lived sessions end within milliseconds."""


class Session:
    """A client and, once leased, its tunnel."""

    def __init__(
        self, client: Client, peer: str, number: int, route_context: RouteContext, context: SessionContext
    ) -> None:
        self._client = client
        self._route = route = route_context.route
        self._route_context = route_context
        # The route's limit first, so that a client that waits for its route does not count against the others.
        self._session_limits = (route_context.session_limit, context.session_limit)
        self._admitted_by: list[SessionLimit] = []
        self._context = context
        self._counts = counts = route_context.counts
        self._clock = context.clock
        self.number = number
        self._peer = peer
        self._began = context.clock()
        longest_s = route.max_lifetime_s
        self._lifetime_s = longest_s and longest_s * random.uniform(0.9, 1.1)  # noqa: S311 - spreads, does not protect
        self._log = route_context.log.bind(session=number, peer=peer)
        self._user = PeerUser(client, context.users)
        self._session_log = SessionLog(
            self._log, self._user, counts, context.log_sessions, route_context.generation, context.clock
        )
        self._waited_ms = 0
        self._waiting = Interrupt()
        """Surrounds every wait outside the relay: for admission, for a tunnel, for delivery of the last bytes."""
        self._stopped: End | None = None
        self._tunnel: Tunnel | None = None
        self._relay: Relay | None = None
        """The relay while it runs."""
        self._failure = ""

    def run(self) -> str:
        """Serve the client and return why that failed, in a sentence, or empty if it did not fail. Blocks."""
        try:
            self._user.identify_soon()
            with self._waiting:
                self._admit()
            if not self._session_log.is_over and not self._refuse_if_stopped():
                self._session_log.opened()
                self._serve()
        except BaseException:
            if not self._session_log.is_over:
                self._refused("the agent ended the session while the client waited for a tunnel", reason=CRASHED.reason)
            raise
        finally:
            self._client.abort()  # does nothing if the client was closed in order
            for session_limit in self._admitted_by:
                session_limit.release()
        return self._failure

    def stop(self, end: End) -> None:
        """End the session at any stage. Only the first call's reason counts. Does not block."""
        if self._stopped is None:
            self._stopped = end
        if self._relay is not None:
            self._relay.stop(end)
        else:
            self._waiting.send()

    @property
    def presented(self) -> Presented | None:
        """The token presented for the tunnel, or None without a tunnel or a token."""
        return self._tunnel.presented if self._tunnel is not None else None

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes up and down so far, or (0, 0) once the route counts them as those of a closed session."""
        relay = None if self._session_log.is_over else self._relay
        return (relay.bytes_up, relay.bytes_down) if relay is not None else (0, 0)

    @property
    def facts(self) -> SessionFacts:
        """A snapshot of the session."""
        now, tunnel, relay = self._clock(), self._tunnel, self._relay
        moved_up, moved_down = self.moved
        return SessionFacts(
            self.number, self._peer, self._user.uid, self._user.name, now - self._began,
            None if tunnel is None else self._waited_ms, moved_up, moved_down,
            None if relay is None else now - relay.last_byte_at,
            tunnel.request_id if tunnel else "", tunnel.was_warm if tunnel else False,
        )  # fmt: skip

    def check(self, now: float) -> None:
        """End the session if it reached a limit or lost a side, or log progress if due. Does not block."""
        relay, tunnel = self._relay, self._tunnel
        if self._session_log.is_over:
            return
        if relay is None or tunnel is None:
            if self._client.is_at_end() and self._client.has_closed():
                self.stop(CLIENT_ABORTED)
        elif self._client.is_lost() and not relay.is_forwarding:
            self.stop(CLIENT_LOST)
        elif tunnel.stream.is_dead():
            self.stop(GATEWAY_LOST)
        elif self._lifetime_s and now - self._began >= self._lifetime_s:
            self.stop(LIFETIME_OVER)
        elif self._route.idle_timeout_s and now - relay.last_byte_at >= self._route.idle_timeout_s:
            self.stop(IDLE)
        else:
            self._session_log.progress(tunnel, relay, now)

    # --- stages ---------------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Check the user, then wait for the route's and the agent's session limits. Refuse the client if one fails."""
        objection = self._user.objection(self._route.allow_users)
        if objection:  # before the client costs anything
            self._refused(objection, Recovery.OPERATOR, reason="user")
            return
        for session_limit in self._session_limits:
            if not session_limit.acquire(ADMISSION_TIMEOUT_S):
                self._refused(session_limit.why_full, reason="limit")
                return
            self._admitted_by.append(session_limit)

    def _serve(self) -> None:
        tunnel = self._lease()
        if tunnel is None:
            return
        relay, end = self._relay_over(tunnel)
        if tunnel.may_be_stale and relay.is_untouched and end.side is Side.GATEWAY and self._stopped is None:
            tunnel.close(Reason.PEER_CLOSED)  # died while warm: replace it once, unnoticed by the client
            self._log.debug(events.TUNNEL_CLOSED, reason=Reason.PEER_CLOSED.value, request_id=tunnel.request_id)
            tunnel = self._lease()
            if tunnel is None:
                return
            relay, end = self._relay_over(tunnel)
        self._closed(tunnel, relay, end)
        try:
            with self._waiting:
                if self._stopped is None:
                    self._finish(tunnel, end)
        finally:
            tunnel.close(Reason.FINISHED if end.is_clean else Reason.ABORTED)

    def _lease(self) -> Tunnel | None:
        """Lease a tunnel. Without one, refuse the client and return None. Blocks."""
        tunnel: Tunnel | None = None
        try:
            with self._waiting:
                tunnel = self._route_context.lease(Deadline(self._route.wait_timeout_s, self._clock))
        except (TunnelError, PoolError) as error:
            self._refused(str(error), error.recovery, error.reason)
            return None
        self._waited_ms = self._session_log.since(self._clock())
        if tunnel is None:
            self._refuse_if_stopped()
        else:
            self._counts.lease(self._clock() - self._began)
        return tunnel

    def _refuse_if_stopped(self) -> bool:
        """Refuse the client if the session was stopped while it waited, and return whether it was."""
        if self._stopped is not None:
            self._refused(
                "the client left, or the agent ended the session, before it had a tunnel", reason=self._stopped.reason
            )
        return self._stopped is not None

    def _relay_over(self, tunnel: Tunnel) -> tuple[Relay, End]:
        route, stream = self._route, tunnel.stream
        relay = Relay(
            self._client, stream,
            HalfClosePolicy(route.half_close, route.half_close_timeout_s, can_carry=stream.carries_half_close),
            self._context, on_greeting=lambda first: self._route_context.note_greeting(first, tunnel.accepted_s),
        )  # fmt: skip
        if self._stopped is not None:
            relay.stop(self._stopped)
        self._tunnel, self._relay = tunnel, relay
        try:
            return relay, relay.run(tunnel.early)
        except BaseException:
            self._closed(tunnel, relay, self._stopped or CRASHED)
            tunnel.close(Reason.ABORTED)
            raise
        finally:
            self._tunnel = self._relay = None

    def _finish(self, tunnel: Tunnel, end: End) -> None:
        """Deliver to each side what was sent to it, then the other side's end or a reset. Blocks."""
        if end.side is Side.CLIENT:
            tunnel.finish()  # even after a reset, which no gateway passes on: what the client sent still counts
        elif end.side is Side.GATEWAY:
            tunnel.close(Reason.FINISHED if end.is_clean else Reason.ABORTED)
        if end.side is Side.AGENT or end in (CLIENT_ABORTED, CLIENT_LOST):
            return
        try:
            if end.is_clean:
                self._client.send_eof()
            linger(self._client, LAST_BYTES_TIMEOUT_S)
        except StreamLost:
            return  # the client left first
        if end.is_clean:
            self._client.close()

    # --- log and counts -------------------------------------------------------------------------------------------

    def _closed(self, tunnel: Tunnel, relay: Relay, end: End) -> None:
        self._counts.close(end.side.value, end.reason, relay.bytes_up, relay.bytes_down)
        if end.side is Side.GATEWAY:
            self._route_context.note_close(self._clock() - relay.last_byte_at, tunnel.accepted_s)
        if not end.is_clean:
            self._failure = f"ended by the {end.side.value}: {end.reason}"
        self._session_log.closed(tunnel, relay, end, self._waited_ms)

    def _refused(self, error: str, recovery: Recovery = Recovery.RETRY, reason: str = "") -> None:
        self._failure = error
        self._counts.refuse(reason or recovery.value)
        self._session_log.refused(error, recovery, reason)
