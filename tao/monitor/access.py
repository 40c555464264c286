"""Who may ask a monitor.

Contents: check_token, Denial, Access.

Owns the token and the two rules:

- With a token, whoever asks for numbers brings it, in a header. Not in the URL, which ends up in logs,
  histories and `Referer`; not in a cookie, which a browser adds to requests that other sites make. The page
  takes it from the URL's fragment, which stays in the browser, or from who sits before it.
- Without one, the monitor listens on this machine alone, and answers only requests whose `Host` is a name
  of this machine. A page from elsewhere whose name has been made to lead here (DNS rebinding) is for its
  browser the same site as this one and could read everything; but its requests say that name.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

__all__ = ["Access", "Denial", "check_token"]

SHORTEST_TOKEN = 16
"""Characters. Guessing is not slowed down, so a token has to be more than a word."""

_TOKEN = re.compile(r"[\x21-\x7e]+")  # what a header can carry as one word
_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)  # RFC 6750, 2.1


def check_token(token: str | None) -> None:
    """Raises ValueError or TypeError for a token that will not do. Its text is not told."""
    if token is None:
        return
    if not isinstance(token, str):
        raise TypeError(
            f"a token is a text, such as secrets.token_urlsafe() gives, not {type(token).__name__}"
        )
    if len(token) < SHORTEST_TOKEN or not _TOKEN.fullmatch(token):
        raise ValueError(
            f"a token must be {SHORTEST_TOKEN} or more characters of ASCII without spaces, such as "
            f"secrets.token_urlsafe() gives; this one has {len(token)}"
        )


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a request is not answered, and how to do better."""

    status: HTTPStatus
    text: str
    headers: tuple[tuple[str, str], ...] = ()


class Access:
    """The rules of one monitor. Immutable: any thread."""

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode("ascii")

    def check_host(self, hosts: Sequence[str], target: str) -> Denial | None:
        """Whether it is this monitor that is meant. `hosts` are the request's `Host` headers.

        A request of HTTP/1.0 may have none: no browser makes such.
        """
        if len(hosts) > 1:
            return Denial(HTTPStatus.BAD_REQUEST, "a request has one Host")
        if self._token is not None:
            return None
        # In a target with a host of its own, that is the one which counts: RFC 9112, 3.2.2.
        for host in (*hosts, *_host_of(target)):
            if not _is_local(host):
                return Denial(
                    HTTPStatus.MISDIRECTED_REQUEST,
                    "ask for localhost or 127.0.0.1; to be reached by other names it needs a token",
                )
        return None

    def check_token(self, authorizations: Sequence[str]) -> Denial | None:
        """Whether the request may see numbers. `authorizations` are its headers of that name."""
        if self._token is None:
            return None
        found = _BEARER.fullmatch(authorizations[0]) if len(authorizations) == 1 else None
        # Compared in a time that does not tell how much of it is right.
        given = b"" if found is None else found[1].encode("latin-1", "replace")
        if hmac.compare_digest(given, self._token):
            return None
        return Denial(
            HTTPStatus.UNAUTHORIZED,
            "this monitor needs its token, in a header: Authorization: Bearer TOKEN",
            (("WWW-Authenticate", 'Bearer realm="tao monitor"'),),
        )


def _host_of(target: str) -> list[str]:
    if target.startswith("/") or "://" not in target:
        return []
    try:
        return [urlsplit(target).netloc]
    except ValueError:
        return []  # it leads nowhere either


def _is_local(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
