"""TLS contexts with today's defaults.

Owns two functions that make an `ssl.SSLContext`; any other context of the standard library's will do
as well. What the defaults follow: RFC 9325 (BCP 195), "Recommendations for Secure Use of TLS".
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Sequence

__all__ = ["load_client_tls", "load_server_tls"]

logger: logging.Logger = logging.getLogger("tao")


def load_server_tls(
    certificate_file: str | os.PathLike[str],
    key_file: str | os.PathLike[str] | None = None,
    *,
    password: str | None = None,
    client_ca_file: str | os.PathLike[str] | None = None,
    require_client_certificate: bool = True,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """A context for a server, for `Server(tls=...)`.

    `certificate_file` holds the chain, PEM, the server's own certificate first; `key_file` its key, if
    it is not in the same file, under `password`, if it has one. With `client_ca_file`, clients must show
    a certificate signed by one of those; `require_client_certificate=False` lets them choose. `alpn`
    are the protocols to agree on, the preferred one first.

    TLS 1.2 at least, 1.3 where the peer can; no compression, no renegotiation. Raises OSError for a file
    that cannot be read, ssl.SSLError for one that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context, alpn)
    _load_chain(context, certificate_file, key_file, password)
    if client_ca_file is not None:
        _load_authorities(context, client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED if require_client_certificate else ssl.CERT_OPTIONAL
    return context


def load_client_tls(
    ca_file: str | os.PathLike[str] | None = None,
    *,
    certificate_file: str | os.PathLike[str] | None = None,
    key_file: str | os.PathLike[str] | None = None,
    password: str | None = None,
    check_hostname: bool = True,
    verify: bool = True,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """A context for a client, for `ClientConn(tls=...)`.

    The server's certificate must be signed by one of `ca_file`'s, PEM, or without it by one that the
    system trusts, and be made out to the host's name. `certificate_file` and `key_file` are the client's
    own, for a server that asks. `check_hostname=False` accepts any name; `verify=False` accepts any
    certificate at all, and with it anybody in between: both are logged as a warning.

    Otherwise as `load_server_tls`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context, alpn)
    if not verify:
        logger.warning(
            "TLS: the server's certificate will not be verified: anybody can pass for it"
        )
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif not check_hostname:
        logger.warning("TLS: the server's name will not be checked: any valid certificate will do")
        context.check_hostname = False
    if ca_file is not None:
        _load_authorities(context, ca_file)
    elif verify:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if certificate_file is not None:
        _load_chain(context, certificate_file, key_file, password)
    return context


def _load_chain(
    context: ssl.SSLContext,
    certificate_file: str | os.PathLike[str],
    key_file: str | os.PathLike[str] | None,
    password: str | None,
) -> None:
    where = certificate_file if key_file is None else key_file
    _check_readable(certificate_file)
    _check_readable(where)
    try:
        context.load_cert_chain(certificate_file, key_file, password)
    except ssl.SSLError as error:
        raise ssl.SSLError(
            error.errno,
            f"cannot use the certificate in {os.fspath(certificate_file)!r} with the key in "
            f"{os.fspath(where)!r}: {error.strerror}; both must be PEM, the key must be the "
            f"certificate's, and the password, if it needs one, must be its password",
        ) from error


def _load_authorities(context: ssl.SSLContext, ca_file: str | os.PathLike[str]) -> None:
    _check_readable(ca_file)
    try:
        context.load_verify_locations(ca_file)
    except ssl.SSLError as error:
        raise ssl.SSLError(
            error.errno,
            f"cannot use {os.fspath(ca_file)!r}: {error.strerror}; it must be PEM certificates",
        ) from error


def _check_readable(path: str | os.PathLike[str]) -> None:
    """Raises OSError with the name of the file in it, which OpenSSL's own errors leave out."""
    with open(path, "rb"):
        pass


def _harden(context: ssl.SSLContext, alpn: Sequence[str]) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if alpn:
        context.set_alpn_protocols(list(alpn))
