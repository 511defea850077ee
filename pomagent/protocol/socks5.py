"""The client's side of SOCKS5 (RFC 1928) with user and password (RFC 1929), without I/O."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

VERSION, AUTH_VERSION = 5, 1
CONNECT = 1
NO_AUTH, USER_AND_PASSWORD, NONE_ACCEPTABLE = 0, 2, 0xFF
IPV4, NAME, IPV6 = 1, 3, 4

NOT_ALLOWED = 2
REPLIES = {
    1: "general failure",
    NOT_ALLOWED: "not allowed by the proxy's rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "the proxy does not support CONNECT",
    8: "the proxy does not support this type of address; try socks5h:// for socks5://, or the other way round",
}
_FINAL = frozenset({NOT_ALLOWED, 7, 8})
_ADDRESS_BYTES = {IPV4: 4, IPV6: 16}


class Malformed(ValueError):
    """The received bytes are not SOCKS5."""


class Refusal(Exception):
    """The server refuses the connection."""

    def __init__(self, why: str, *, is_final: bool = True, is_for_credentials: bool = False) -> None:
        super().__init__(why)
        self.is_final = is_final
        """Whether a retry cannot help."""
        self.is_for_credentials = is_for_credentials


class Socks5:
    """The handshake for one connection to ``host``: an address, or a name for the server to resolve."""

    def __init__(self, host: str, port: int, user: str = "", password: str = "") -> None:
        self._target = (host, port)
        self._user, self._password = user.encode(), password.encode()
        methods = bytes([NO_AUTH, USER_AND_PASSWORD] if user else [NO_AUTH])
        self._outgoing = bytes([VERSION, len(methods)]) + methods
        self._incoming = b""
        self._state: Callable[[], bool] = self._read_method
        self.is_open = False

    def pop_outgoing(self) -> bytes:
        """Return the bytes to send now, once."""
        outgoing, self._outgoing = self._outgoing, b""
        return outgoing

    def receive(self, data: bytes) -> None:
        """Process received bytes. Raises Malformed and Refusal."""
        self._incoming += data
        while not self.is_open and self._state():
            pass
        if self.is_open and self._incoming:
            raise Malformed("it sent bytes before the gateway could")

    # Each state consumes one message, and returns whether it was complete.

    def _read_method(self) -> bool:
        message = self._pop(2)
        if message is None:
            return False
        _, method = message
        if method == NO_AUTH:
            self._request()
        elif method == USER_AND_PASSWORD and self._user:
            self._authenticate()
        elif method == NONE_ACCEPTABLE:
            raise Refusal("accepts none of our authentication methods", is_for_credentials=not self._user)
        else:
            raise Malformed("it chose an authentication method that was not offered")
        return True

    def _read_verdict(self) -> bool:
        message = self._pop(2, version=AUTH_VERSION)
        if message is None:
            return False
        if message[1]:
            raise Refusal("refuses this user", is_for_credentials=True)
        self._request()
        return True

    def _read_reply(self) -> bool:
        head = self._peek(4)
        if head is None:
            return False
        _, code, _, kind = head
        if code:  # some servers send no address with an error
            why = REPLIES.get(code)
            if why is None:
                raise Malformed("an unknown reply code")
            raise Refusal(why, is_final=code in _FINAL)
        length = self._address_length(kind)
        if length is None or self._pop(4 + length + 2) is None:
            return False
        self.is_open = True
        return True

    def _address_length(self, kind: int) -> int | None:
        """Return the address's length, with a name's length byte. None until that byte has arrived."""
        if kind == NAME:
            head = self._peek(5)
            return None if head is None else 1 + head[4]
        if kind not in _ADDRESS_BYTES:
            raise Malformed("an unknown type of address")
        return _ADDRESS_BYTES[kind]

    # --- messages to the server ---------------------------------------------------------------------------------------

    def _authenticate(self) -> None:
        self._outgoing += bytes([AUTH_VERSION]) + _with_length(self._user) + _with_length(self._password)
        self._state = self._read_verdict

    def _request(self) -> None:
        host, port = self._target
        self._outgoing += bytes([VERSION, CONNECT, 0]) + _encoded(host) + port.to_bytes(2, "big")
        self._state = self._read_reply

    # --- received bytes -----------------------------------------------------------------------------------------------

    def _pop(self, length: int, version: int = VERSION) -> bytes | None:
        message = self._peek(length, version)
        if message is not None:
            self._incoming = self._incoming[length:]
        return message

    def _peek(self, length: int, version: int = VERSION) -> bytes | None:
        """Return the first ``length`` bytes. None until all have arrived."""
        if self._incoming and self._incoming[0] != version:
            raise Malformed("another protocol")
        return self._incoming[:length] if len(self._incoming) >= length else None


def _encoded(host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        return bytes([NAME]) + _with_length(host.encode())
    return bytes([IPV4 if address.version == 4 else IPV6]) + address.packed


def _with_length(word: bytes) -> bytes:
    return bytes([len(word)]) + word
