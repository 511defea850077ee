"""Logins for the running agent: a command brings their tokens over the control socket; the agent opens no browser."""

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
    """Takes tokens for the credentials with ``login = "browser"``, keeps them, and gives them to their routes."""

    def __init__(self, agent: Agent, environ: Mapping[str, str], log: Logger) -> None:
        self._agent = agent
        self._environ = environ
        self._log = log
        self._threads = Threads(1)

    @property
    def body_handlers(self) -> Mapping[str, BodyHandler]:
        """By the path of the control socket's URL."""
        return {"/token": self.take, "/forget-token": self.forget}

    def read(self, credential: Credential) -> SecretStr:
        """The token that was brought last. Blocks its greenlet, not the hub. Raises CredentialError."""
        token = self._threads.call(stored_token, credential, None, self._environ)
        if token is None:
            raise CredentialError(f"nobody is logged in; run: pomagent login {self._gateway_of(credential)}".rstrip())
        return token

    def take(self, asked: JsonObject) -> JsonObject:
        """``POST /token``: ``gateway`` and ``token``, and ``credential`` where the gateway has several. Blocks.

        Raises Declined.
        """
        routes = self._routes(asked)
        text = _text(asked, "token")
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

    def forget(self, asked: JsonObject) -> JsonObject:
        """``POST /forget-token``: the same without ``token``. What is open lives on. Blocks. Raises Declined."""
        routes = self._routes(asked)
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
            problem = f"the login cannot be kept for the next start: {error}; give the agent a STATE_DIRECTORY"
            self._log.warning(events.CONFIG_WARNED, warning=problem)
            return False
        return True

    def _routes(self, asked: JsonObject) -> list[Route]:
        """The routes of one credential that a request is about. Raises Declined."""
        gateway, named = _text(asked, "gateway"), _text(asked, "credential")
        routes = [route for route in self._login_routes() if route.gateway.name == gateway]
        names = sorted({route.credential.name for route in routes if route.credential})
        if named:
            routes = [route for route in routes if route.credential and route.credential.name == named]
        elif len(names) > 1:
            raise Declined(f"several logins belong to this gateway: {', '.join(names)}; choose one with --credential")
        if not routes:
            raise Declined('no route of this gateway has a credential with login = "browser"')
        return routes

    def _login_routes(self) -> list[Route]:
        return [route for route in self._agent.routes if route.credential and route.credential.source == "login"]

    def _gateway_of(self, credential: Credential) -> str:
        return next((route.gateway.name for route in self._login_routes() if route.credential == credential), "")


def _text(document: JsonObject, key: str) -> str:
    value = document.get(key, "")
    if not isinstance(value, str):
        raise Declined(f"{key} is not a text")
    return value
