"""Opens the tunnels of one route: dial, TLS, CONNECT, and one retry where a fresh token or connection may help."""

from __future__ import annotations

import time

from pydantic import SecretStr

from pomagent.credentials.header import header
from pomagent.credentials.refresh_schedule import life_of
from pomagent.credentials.token import Token
from pomagent.errors import (
    BearerForbidden,
    CredentialError,
    CredentialRejected,
    GatewayTimedOut,
    GatewayUnreachable,
    GatewayUntrusted,
    TokenMissing,
    TunnelError,
)
from pomagent.gateway import clock_offset
from pomagent.gateway.connect import request_tunnel
from pomagent.gateway.dialer import Dialer
from pomagent.gateway.failure_log import FailureLog
from pomagent.gateway.tunnel import Presented, Tunnel
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.protocol.answers import refusal
from pomagent.protocol.connect import Answer, ConnectRequest
from pomagent.protocol.lifecycle import Reason
from pomagent.runtime.deadline import Clock
from pomagent.settings import Route


class TunnelOpener:
    """Opens the tunnels of one route."""

    def __init__(
        self, route: Route, dialer: Dialer, token: Token | None, log: Logger, wall_clock: Clock = time.time
    ) -> None:
        self._route = route
        self._dialer = dialer
        self._token = token
        self._log = log
        self._wall_clock = wall_clock
        self._failures = FailureLog()
        self._named = {"gateway": str(route.gateway.address), "destination": str(route.destination)}
        self._request: ConnectRequest | None = None
        """The request for ``_requested_with``, built once for all tunnels with that token."""
        self._requested_with: SecretStr | None = None

    def secure(self, *, urgent: bool = True) -> Tunnel:
        """Return a secured tunnel, ready for its CONNECT. Blocks. Raises TunnelError.

        Dials that are ``urgent``, because a client waits, begin before others.
        """
        tunnel = Tunnel()
        try:
            secured = self._dialer.dial(self._named["destination"], tunnel.securing, urgent=urgent)
        except TunnelError as error:
            self._failed(tunnel, error)
            raise
        except BaseException:
            tunnel.close(Reason.ABORTED)
            raise
        tunnel.secured(secured.stream, secured.timings)
        self._failures.secured()
        return tunnel

    def open(self, tunnel: Tunnel, *, urgent: bool = True) -> Tunnel:
        """Send the CONNECT over a secured tunnel, and return the accepted tunnel, which may be another one. Blocks.

        Retries once: with a new connection if the waiting one had died, with a fresh token if the gateway rejected the
        present one. Raises TunnelError.
        """
        sent = self._obtain(tunnel)
        try:
            return self._connect(tunnel, sent)
        except (CredentialRejected, BearerForbidden) as error:
            if self._token is None or not self._token.reread(sent):
                if isinstance(error, CredentialRejected) and (problem := self._login_problem):
                    raise self._unhealed(error, problem) from error
                raise
        except GatewayUnreachable:
            if not tunnel.was_warm:
                raise
        token = self._token.value if self._token else None
        return self._connect(self.secure(urgent=urgent), token, is_fresh=token != sent)

    def _obtain(self, tunnel: Tunnel) -> SecretStr | None:
        """Return the token to send, and fetch the first one. Blocks. Raises TokenMissing."""
        if self._token is None:
            return None
        try:
            return self._token.obtain()
        except CredentialError as error:
            missing = self._missing(self._token, str(error))
            self._failed(tunnel, missing)
            raise missing from error
        except BaseException:
            tunnel.close(Reason.ABORTED)
            raise

    @property
    def token_error(self) -> TokenMissing | None:
        """The failure that the next dial would meet because there is no token, as far as is known without a dial."""
        token = self._token
        if token is None or token.value is not None or not token.problem or token.credential.anonymous_first:
            return None
        return self._missing(token, token.problem)

    def _missing(self, token: Token, problem: str) -> TokenMissing:
        return TokenMissing(
            f'no token from the credential "{token.credential.name}": {problem}', phase="token", **self._named
        )

    @property
    def _login_problem(self) -> str:
        """Why the login that the route depends on failed. Empty if it did not."""
        token = self._token
        return token.problem if token is not None and token.credential.source == "login" else ""

    def _connect(self, tunnel: Tunnel, token: SecretStr | None, *, is_fresh: bool = False) -> Tunnel:
        try:
            tunnel.opening()
            began = time.monotonic()
            answer = self._exchange(tunnel, token)
            tunnel.timings.connect_ms = (time.monotonic() - began) * 1000
            self._check(answer, token, is_fresh=is_fresh)
        except TunnelError as error:
            self._failed(tunnel, error)
            raise
        except BaseException:
            tunnel.close(Reason.ABORTED)
            raise
        tunnel.accepted(answer.request_id, answer.early, self._presented(token))
        self._dialer.accepted(tunnel.stream, tunnel.timings.connect_ms)
        self._opened(tunnel)
        return tunnel

    def _presented(self, token: SecretStr | None) -> Presented | None:
        return Presented(self._route.gateway, self._token.credential, token) if self._token and token else None

    def _check(self, answer: Answer, token: SecretStr | None, *, is_fresh: bool) -> None:
        self._dialer.answered(answer.status, answer.headers.get("date", ""))
        if not answer.is_tunnel:
            credential = self._token.credential.name if self._token and token else None
            is_login = self._token is not None and self._token.credential.source == "login"
            login = self._route.gateway.name if is_login else ""
            raise refusal(
                answer, credential=credential, login=login, is_fresh=is_fresh,
                gateway=self._named["gateway"], destination=self._named["destination"],
                ended=self._ended(token) if token else "", clock=clock_offset.problem(self._dialer.clock_offset_s),
                is_bearer=self._token is not None and self._token.credential.scheme == "bearer",
            )  # fmt: skip

    def _ended(self, token: SecretStr) -> str:
        """Return how long ago a token expired, by its own claim and the gateway's clock. Empty if it has not."""
        left_s = life_of(token.get_secret_value()).left_s(self._wall_clock() + (self._dialer.clock_offset_s or 0.0))
        return clock_offset.duration(-left_s) if left_s is not None and left_s <= 0 else ""

    def _unhealed(self, error: CredentialRejected, problem: str) -> CredentialRejected:
        """Return the refusal with the reason why a login could not heal it."""
        return CredentialRejected(
            problem, status=error.status or 401, request_id=error.request_id,
            gateway=error.gateway, destination=error.destination,
        )  # fmt: skip

    def _exchange(self, tunnel: Tunnel, token: SecretStr | None) -> Answer:
        request = self._request
        if request is None or token is not self._requested_with:
            request = ConnectRequest(self._named["destination"], self._headers(token))
            self._request, self._requested_with = request, token
        return request_tunnel(tunnel.stream, request, self._named["gateway"], self._route.gateway.response_timeout_s)

    def _headers(self, token: SecretStr | None) -> dict[str, str]:
        if self._token is None or token is None:
            return {}
        return header(self._route.gateway.credential_header, self._token.credential.scheme, token)

    def _opened(self, tunnel: Tunnel) -> None:
        self._failures.accepted()
        if not self._log.is_enabled_for("debug"):
            return
        self._log.debug(
            events.TUNNEL_OPENED, **self._named, request_id=tunnel.request_id,
            **tunnel.timings.fields,
        )  # fmt: skip

    def _failed(self, tunnel: Tunnel, error: TunnelError) -> None:
        tunnel.close(_reason(error))
        write = self._log.warning if self._failures.is_news(error) else self._log.debug
        write(
            events.TUNNEL_FAILED, **self._named, phase=error.phase, error=str(error), recovery=error.recovery.value,
            status=error.status, request_id=error.request_id, count=self._failures.count,
        )  # fmt: skip


def _reason(error: TunnelError) -> Reason:
    if isinstance(error, GatewayTimedOut):
        return Reason.TIMED_OUT
    if isinstance(error, GatewayUntrusted):
        return Reason.UNTRUSTED
    if isinstance(error, GatewayUnreachable):
        return Reason.UNREACHABLE
    return Reason.REFUSED
