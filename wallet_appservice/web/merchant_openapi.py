"""The OpenAPI document of everything that merchants and those who pay them can call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse

from wallet_appservice.web.api import PREFIX

PATH: Final = f"{PREFIX}/merchant/openapi.json"
_BY_KEY: Final = f"{PREFIX}/v1/merchant/"


def merchant_openapi(routers: Sequence[APIRouter]) -> APIRouter:
    """Serves one document about all of the routers."""
    schema = get_openapi(
        title="Weft wallet for merchants",
        version="1",
        summary="Orders, payment codes, refunds, notifications and reconciliation.",
        description=(
            "Programs of a merchant send an API key, its owner and those who pay a session's token, both as "
            "`Authorization: Bearer`. Amounts are strings of integer minor units."
        ),
        routes=[route for router in routers for route in router.routes],
    )
    _describe_sign_in(schema)
    router = APIRouter()

    @router.get(PATH, include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(schema)

    return router


def _describe_sign_in(schema: dict[str, Any]) -> None:
    """Keys and sessions are checked by ours, not by FastAPI, and 422 is never answered."""
    components = schema.setdefault("components", {})
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key, weft_sk_…"},
        "session": {"type": "http", "scheme": "bearer", "description": "See docs/protocol/sign-in.md"},
    }
    for name in ("HTTPValidationError", "ValidationError"):
        components.get("schemas", {}).pop(name, None)
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if "public" not in operation.get("tags", ()):
                operation["security"] = [{"key" if path.startswith(_BY_KEY) else "session": []}]
