"""The way to the service: straight, or by a proxy that is given or that the environment names."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import httpx

from hetlora.errors import DependencyMissing, SettingsError


def client_by_way_of(
    proxy: str | None, verify: ssl.SSLContext, proxy_verify: Callable[[], ssl.SSLContext], **settings: Any
) -> httpx.Client:
    """A client that goes by `proxy`; None is what HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say.

    Args:
        proxy: http(s)://[USER:PASSWORD@]HOST[:PORT], or socks5:// where httpx has its extra; without a scheme
            it is http. One that is given goes before NO_PROXY.
        verify: how the service is known, also through the proxy.
        proxy_verify: how a proxy is known that is itself reached by https.
        settings: further arguments of `httpx.Client`.

    Raises:
        SettingsError: no address of a proxy. It may hold a password, and is not told.
        DependencyMissing: a SOCKS proxy without what httpx needs for it.
    """
    try:
        way = None if proxy is None else _way(proxy, proxy_verify)
        return httpx.Client(verify=verify, proxy=way, **settings)
    except ImportError:
        raise DependencyMissing(
            "a SOCKS proxy cannot be used", got="no module socksio", expected="pip install 'httpx[socks]'"
        ) from None
    except (ValueError, httpx.InvalidURL):  # whose texts quote what may be a password
        whose = "proxy" if proxy is not None else "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
        raise SettingsError(f"{whose} is no address of a proxy", expected="http(s)://HOST[:PORT]") from None


def _way(proxy: str, verify: Callable[[], ssl.SSLContext]) -> httpx.Proxy:
    url = httpx.URL(proxy if "://" in proxy else f"http://{proxy}")
    if not url.host:
        raise ValueError("no host")
    return httpx.Proxy(url, ssl_context=verify() if url.scheme == "https" else None)
