"""Login tokens of the running agent, which opens no browser: commands send them over the control socket."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import SecretStr

from pomagent.admin.control.server import BodyHandler, Declined
from pomagent.admin.json_object import JsonObject
from pomagent.agent import Agent
from pomagent.config.secrets import MAX_TOKEN_BYTES, check_token
from pomagent.credentials.login.stored import forget_tokens, store_token, stored_token
from pomagent.errors import CredentialError
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.threads import Threads
from pomagent.settings import Credential, HostPort, Route


class LoginTokens:
    """Accepts tokens for credentials with ``login = "browser"``, stores them, and gives them to their routes."""

    def __init__(self, agent: Agent, environ: Mapping[str, str], log: Logger) -> None:
        self._agent = agent
        self._environ = environ
        self._log = log
        self._threads = Threads(1)

    @property
    def body_handlers(self) -> Mapping[str, BodyHandler]:
        """Handlers of POST requests by URL path."""
        return {"/token": self.take, "/forget-token": self.forget}

    def read(self, credential: Credential) -> SecretStr:
        """Return the token of the last login. Blocks its greenlet, not the hub. Raises CredentialError."""
        token = self._threads.call(stored_token, credential, None, self._environ)
        if token is None:
            raise CredentialError(f"not logged in; run: pomagent login {self._gateway_of(credential)}".rstrip())
        return token

    def take(self, body: JsonObject) -> JsonObject:
        """Handle ``POST /token`` with ``gateway``, ``token``, and ``credential`` if the gateway has several. Blocks.

        Raises Declined.
        """
        routes = self._routes(body)
        text = _text(body, "token")
        if len(text) > MAX_TOKEN_BYTES:
            raise Declined(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
        try:
            token = check_token(text, "the token")
        except CredentialError as error:
            raise Declined(str(error)) from error
        credential = routes[0].credential
        assert credential is not None
        is_kept = self._keep(credential, routes[0].gateway.address, token)
        self._agent.take_token(credential, token)
        return {"credential": credential.name, "routes": [route.name for route in routes], "kept": is_kept}

    def forget(self, body: JsonObject) -> JsonObject:
        """Handle ``POST /forget-token``, without ``token``. Open sessions go on. Blocks. Raises Declined."""
        routes = self._routes(body)
        credential = routes[0].credential
        assert credential is not None
        try:
            count = self._threads.call(forget_tokens, credential.name, self._environ)
        except OSError as error:
            raise Declined(f"the agent cannot remove the token's file: {error}") from error
        self._agent.drop_token(credential)
        return {"credential": credential.name, "routes": [route.name for route in routes], "forgotten": count}

    def _keep(self, credential: Credential, gateway: HostPort, token: SecretStr) -> bool:
        try:
            self._threads.call(store_token, credential.name, gateway, token, self._environ)
        except OSError as error:
            problem = f"give the agent a STATE_DIRECTORY: the login cannot be kept for the next start: {error}"
            self._log.warning(events.CONFIG_WARNED, warning=problem)
            return False
        return True

    def _routes(self, body: JsonObject) -> list[Route]:
        """Return the routes of the one credential that a request names. Raises Declined."""
        gateway, named = _text(body, "gateway"), _text(body, "credential")
        routes = [route for route in self._login_routes() if route.gateway.name == gateway]
        names = sorted({route.credential.name for route in routes if route.credential})
        if named:
            routes = [route for route in routes if route.credential and route.credential.name == named]
        elif len(names) > 1:
            raise Declined(f"choose one with --credential: this gateway has several logins: {', '.join(names)}")
        if not routes:
            raise Declined('no route of this gateway has a credential with login = "browser"')
        return routes

    def _login_routes(self) -> list[Route]:
        return [route for route in self._agent.routes if route.credential and route.credential.source == "login"]

    def _gateway_of(self, credential: Credential) -> str:
        return next((route.gateway.name for route in self._login_routes() if route.credential == credential), "")


def _text(body: JsonObject, key: str) -> str:
    value = body.get(key, "")
    if not isinstance(value, str):
        raise Declined(f"{key} must be a text")
    return value
