"""Who may use the desk, and what they pay for. A real app has all of this in its database, and asks its sign-on."""

from __future__ import annotations

import hmac
from collections.abc import MutableMapping
from typing import Annotated, Any

from fastapi import Header, HTTPException
from starlette.requests import HTTPConnection

KEYS = {"desk-acme": "acme", "desk-globex": "globex", "desk-initech": "initech"}
"""Each tenant's key."""

OPERATOR_KEY = "desk-operator"
"""Who may look at everybody's money."""

PAGE_TOKEN = "desk-operator-page"  # noqa: S105  (of a demo)
"""What the same person types in to see it as a page. A real app makes one at random, and has it in its environment."""

PLANS = {"acme": "$0.50/day", "globex": "$0.06/day", "initech": "$0.03/day"}
"""What each tenant pays for."""

SOCKET = "desk"
"""The WebSocket protocol of the desk. A browser cannot send a header with one: it offers `desk` and `desk-key.KEY`."""


async def authenticated(
    connection: HTTPConnection,
    authorization: Annotated[str, Header()] = "",
    sec_websocket_protocol: Annotated[str, Header()] = "",
) -> None:
    """Check the tenant's key. Tierline trusts what the app says here, and nothing that a client sends."""
    offered = authorization.removeprefix("Bearer ")
    for protocol in sec_websocket_protocol.split(","):
        if protocol.strip().startswith(f"{SOCKET}-key."):
            offered = protocol.strip().removeprefix(f"{SOCKET}-key.")
    for key, tenant in KEYS.items():
        if hmac.compare_digest(key.encode(), offered.encode()):
            connection.state.tenant = tenant
            return
    raise HTTPException(401, "send your key, such as `authorization: Bearer desk-acme`")


async def operator(authorization: Annotated[str, Header()] = "") -> None:
    """Let nobody in but who runs the desk."""
    if not hmac.compare_digest(OPERATOR_KEY.encode(), authorization.removeprefix("Bearer ").encode()):
        raise HTTPException(401, "send the operator's key")


def tenant_of(scope: MutableMapping[str, Any]) -> str | None:
    """Whom a request is for, as `authenticated` found out."""
    tenant: str | None = scope.get("state", {}).get("tenant")
    return tenant
