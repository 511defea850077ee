"""TLS 1.3 with AES of 128 bits first: Envoy picks by its client's order, and OpenSSL's begins with a dearer one.

CPython can say an order from 3.15 on (``SSLContext.set_ciphersuites``). Before that OpenSSL is told itself, by the
function behind it, and only where everything is known that this needs.
"""

from __future__ import annotations

import ctypes
import importlib
import ssl
import sys
from collections.abc import Callable

PREFERRED = "TLS_AES_128_GCM_SHA256"
"""Which every implementation of TLS 1.3 has to have (RFC 8446 §9.1)."""

_LAYOUTS_KNOWN = ((3, 11), (3, 14))
"""Versions of CPython, first and last, whose ``SSLContext`` begins with a pointer to OpenSSL's (Modules/_ssl.c)."""


def prefer_aes_128(context: ssl.SSLContext) -> None:
    """Offer what is offered anyway, and ``PREFERRED`` before everything else of TLS 1.3.

    Without an effect where the host's OpenSSL policy leaves it out, or where the order cannot be said: a matter of
    processor time only.
    """
    names = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.3"]
    if PREFERRED not in names or names[0] == PREFERRED:
        return
    set_order: Callable[[str], object] | None = getattr(context, "set_ciphersuites", None) or _by_openssl(context)
    if set_order is not None:
        set_order(":".join(sorted(names, key=lambda name: name != PREFERRED)))


def _by_openssl(context: ssl.SSLContext) -> Callable[[str], object] | None:
    """OpenSSL's own SSL_CTX_set_ciphersuites(3) for this context; None where that is not safe to call."""
    first, last = _LAYOUTS_KNOWN
    if sys.implementation.name != "cpython" or not first <= sys.version_info[:2] <= last:
        return None
    try:
        library = ctypes.CDLL(importlib.import_module("_ssl").__file__)  # finds the OpenSSL that it is linked with
        version, set_order = library.OpenSSL_version_num, library.SSL_CTX_set_ciphersuites
    except (AttributeError, OSError, TypeError):  # built in, or with an OpenSSL of its own that it does not show
        return None
    version.restype = ctypes.c_ulong
    if version() != ssl.OPENSSL_VERSION_NUMBER:
        return None
    set_order.argtypes, set_order.restype = (ctypes.c_void_p, ctypes.c_char_p), ctypes.c_int
    behind_the_head = id(context) + object.__basicsize__
    pointer = ctypes.c_void_p.from_address(behind_the_head)
    return lambda order: set_order(pointer, order.encode("ascii"))
