"""Prefers AES-128 in TLS 1.3: Envoy follows its client's order, and OpenSSL's starts with a costlier cipher.

CPython can set the order from 3.15 on (``SSLContext.set_ciphersuites``). On older versions the underlying OpenSSL
function is called directly, and only where the memory layout that this needs is known.
"""

from __future__ import annotations

import ctypes
import importlib
import ssl
import sys
from collections.abc import Callable

PREFERRED = "TLS_AES_128_GCM_SHA256"
"""The cipher suite that every implementation of TLS 1.3 must support (RFC 8446 §9.1)."""

_LAYOUTS_KNOWN = ((3, 11), (3, 14))
"""First and last CPython version in which ``SSLContext`` starts with the pointer to OpenSSL's (Modules/_ssl.c)."""


def prefer_aes_128(context: ssl.SSLContext) -> None:
    """Offer the same cipher suites, with ``PREFERRED`` as the first of TLS 1.3.

    Does nothing if the host's OpenSSL policy excludes it, or if the order cannot be set. Only processor time depends
    on it.
    """
    names = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.3"]
    if PREFERRED not in names or names[0] == PREFERRED:
        return
    set_order: Callable[[str], object] | None = getattr(context, "set_ciphersuites", None) or _by_openssl(context)
    if set_order is not None:
        set_order(":".join(sorted(names, key=lambda name: name != PREFERRED)))


def _by_openssl(context: ssl.SSLContext) -> Callable[[str], object] | None:
    """Return OpenSSL's SSL_CTX_set_ciphersuites(3) for this context, or None if calling it is not safe."""
    first, last = _LAYOUTS_KNOWN
    if sys.implementation.name != "cpython" or not first <= sys.version_info[:2] <= last:
        return None
    try:
        library = ctypes.CDLL(importlib.import_module("_ssl").__file__)  # resolves symbols of the OpenSSL that it links
        version, set_order = library.OpenSSL_version_num, library.SSL_CTX_set_ciphersuites
    except (AttributeError, OSError, TypeError):  # built in, or linked statically with hidden symbols
        return None
    version.restype = ctypes.c_ulong
    if version() != ssl.OPENSSL_VERSION_NUMBER:
        return None
    set_order.argtypes, set_order.restype = (ctypes.c_void_p, ctypes.c_char_p), ctypes.c_int
    after_object_header = id(context) + object.__basicsize__
    pointer = ctypes.c_void_p.from_address(after_object_header)
    return lambda order: set_order(pointer, order.encode("ascii"))
