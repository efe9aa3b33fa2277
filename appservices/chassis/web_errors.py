"""Refusals of HTTP APIs: Matrix's form, one sentence, and never a 5xx for bad input.

`ApiRoute` is the route class of every JSON API here: it limits the body, and turns what FastAPI finds wrong
with a request into that form.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.types import Message

BODY_BYTES_MAX: Final = 16 * 1024
_SHOWN_LENGTH_MAX = 120


class ApiError(Exception):
    """A request that is refused: HTTP status, Matrix error code, and one sentence for the programmer."""

    def __init__(self, status: int, errcode: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.errcode = errcode
        self.sentence = sentence

    def response(self) -> JSONResponse:
        return JSONResponse({"errcode": self.errcode, "error": self.sentence}, status_code=self.status)


class ErrorBody(BaseModel):
    """How every refusal looks (Matrix client-server API, standard error response)."""

    errcode: str = Field(examples=["M_NOT_FOUND"])
    error: str = Field(description="One sentence.", examples=["There is no such payment of yours."])


class BodyTooLarge(Exception):
    """The request's body is above its limit."""


class ApiRoute(APIRoute):
    """A route of a JSON API."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            limited = limit_body(request, BODY_BYTES_MAX)
            try:
                return await handle(limited)
            except ApiError as error:
                return error.response()
            except RequestValidationError as error:
                return _api_error_of(error).response()
            except BodyTooLarge:
                return _TOO_LARGE.response()
            except HTTPException as error:
                if isinstance(error.__cause__, BodyTooLarge):
                    return _TOO_LARGE.response()
                return ApiError(error.status_code, "M_BAD_JSON", "The body could not be read.").response()

        return answer


def limit_body(request: Request, bytes_max: int) -> Request:
    """The same request, whose body raises BodyTooLarge once more than so much of it has been read."""
    left = bytes_max

    async def receive() -> Message:
        nonlocal left
        message = await request.receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise BodyTooLarge
        return message

    return Request(request.scope, receive)


_TOO_LARGE = ApiError(413, "M_TOO_LARGE", f"A body has at most {BODY_BYTES_MAX} bytes.")


def _api_error_of(error: RequestValidationError) -> ApiError:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    reason = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return ApiError(400, "M_NOT_JSON", "The body is not JSON.")
    if place[:1] == ["body"] and len(place) == 1:
        return ApiError(400, "M_BAD_JSON", "The body must be a JSON object, sent as application/json.")
    name = ".".join(place[1:])[:_SHOWN_LENGTH_MAX]
    errcode = {
        "missing": "M_MISSING_PARAM",
        "extra_forbidden": "M_UNRECOGNIZED",
    }.get(first["type"], "M_INVALID_PARAM" if place[0] != "body" else "M_BAD_JSON")
    return ApiError(
        400, errcode, f"{name}: {reason[:_SHOWN_LENGTH_MAX]}.".encode("utf-8", "replace").decode()
    )
