"""Access rules: the names this server answers to, and the web pages whose scripts may use it.

A browser sends requests wherever a page tells it to, so "the server listens on this machine only" keeps no page out.
A page that makes its own name point to this machine is kept out by the name in ``Host``, any other page by ``Origin``,
and where a browser sends none (images, scripts, links), by ``Sec-Fetch-Site``. Slicer and Python are no browsers and
send neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from causal_sam.errors import InputError
from serving.requests.errors import RefusedError

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_OTHER_SITES = ("cross-site", "same-site")
# Users write either, so pages of one of them may use the server under another, on the same port. Other ports are other
# servers, whoever runs them.
_LOOPBACK_NAMES = ("127.0.0.1", "::1")
_LOOPBACK = "localhost"


class AccessPolicy:
    """Decides by the headers of a request.

    Args:
        hosts: names or addresses of this server beside those of the loopback interface, without ports.
        origins: origins of web pages on other servers that may use this one, such as ``https://viewer.example.org``.
    """

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._hosts = frozenset(checked_host(host) for host in hosts)
        self._origins = frozenset(checked_origin(origin) for origin in origins)

    def check(self, method: str, headers: Headers) -> None:
        """Let a request pass, or refuse it.

        Raises:
            RefusedError: it is for another server (403), or comes from a page that may not use this one (403), or its
                headers are malformed (400).
        """
        given = headers.getlist("host")
        found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        if found is None:
            raise RefusedError(400, "The request must have one Host header with the name of this server.")
        name = _plain(found[1])
        if name not in self._hosts and not _is_loopback(name):
            raise RefusedError(
                403,
                f"This server does not answer to the name {name!r}: use 127.0.0.1, or let its operator add the name to "
                "hosts in its configuration.",
            )
        origins = headers.getlist("origin")
        if len(origins) > 1 or not all(self.allows(origin, given[0]) for origin in origins):
            raise RefusedError(
                403,
                f"Pages of {origins[0][:100]!r} may not use this server: open its own pages, or let its operator add "
                "the page's address to origins in its configuration.",
            )
        if not origins and headers.get("sec-fetch-site") in _OTHER_SITES and not _is_link(method, headers):
            raise RefusedError(403, "Pages of other sites may link to this server, and not load anything from it.")

    def allows(self, origin: str, host: str) -> bool:
        """Return True if scripts of a page may use this server: a page of its own, or one that is configured.

        Args:
            origin: origin of the page, as browsers send it.
            host: header of the request.
        """
        try:
            plain = checked_origin(origin)
            # The scheme is the page's: behind a proxy that ends TLS the server does not know its own.
            return plain in self._origins or plain == checked_origin(f"{urlsplit(origin).scheme}://{host}")
        except InputError:
            return False


def checked_host(host: str) -> str:
    """Return a name of the configuration in the form in which names are compared.

    Raises:
        InputError: it is no host name or address.
    """
    found = _HOST.fullmatch(f"[{host}]" if ":" in host and "[" not in host else host)
    if found is None or found[2]:
        raise InputError(f"hosts must be names or addresses without scheme and port, not {host!r}.")
    return _plain(found[1])


def checked_origin(origin: str) -> str:
    """Return an origin of the configuration in the form in which origins are compared.

    Raises:
        InputError: it is no origin, such as ``https://viewer.example.org``.
    """
    wrong = InputError(f"origins must be addresses such as https://viewer.example.org, not {origin[:100]!r}.")
    try:
        parts = urlsplit(origin)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise wrong from None
    rest = (parts.path.strip("/"), parts.query, parts.fragment, parts.username, parts.password)
    if any(rest) or _HOST.fullmatch(parts.netloc) is None:
        raise wrong
    return f"{parts.scheme}://{_plain(parts.hostname or '')}:{port}"


def _plain(name: str) -> str:
    plain = name.lower().strip("[]").rstrip(".")
    return _LOOPBACK if plain in _LOOPBACK_NAMES else plain


def _is_loopback(name: str) -> bool:
    try:
        return name == _LOOPBACK or ip_address(name).is_loopback
    except ValueError:
        return False


def _is_link(method: str, headers: Headers) -> bool:
    """Return True if a person follows a link: the page with the link does not see the answer."""
    return (method, headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("GET", "navigate", "document")
