"""The HTTP API of sessions at /_weft/sessions: sign in by OpenID, look, sign out.

See docs/protocol/sign-in.md.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from appservices.chassis.openid import OpenIdCheck, OpenIdRefused, OpenIdToken, OpenIdUnchecked
from appservices.chassis.signed_in import SessionGuard
from appservices.chassis.web_errors import ApiError, ApiRoute, ErrorBody
from appservices.chassis.web_sessions import Session, SignInWay

_ERRORS: dict[int | str, dict[str, object]] = {
    code: {"model": ErrorBody, "description": description}
    for code, description in {
        400: "The request is not what it should be.",
        401: "No session, or one that has ended.",
        403: "The token shows no user of this homeserver.",
        503: "The homeserver can't be asked now.",
    }.items()
}


class OpenIdBody(BaseModel):
    """A Matrix OpenID token, as the homeserver gave it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    access_token: str = Field(min_length=1, max_length=1024)
    matrix_server_name: str = Field(min_length=1, max_length=255)
    token_type: str = Field(default="Bearer", pattern="^[Bb]earer$")
    expires_in: float | int | None = None


class NewSessionBody(BaseModel):
    token: str = Field(description="Send it as `Authorization: Bearer …`. It is shown this once.")
    user_id: str
    expires_at_ms: int


class SessionBody(BaseModel):
    session_id: str
    user_id: str
    signed_in_by: SignInWay
    user_agent: str
    created_at_ms: int
    expires_at_ms: int
    current: bool = Field(description="Whether it is the session that asks.")


class SessionsBody(BaseModel):
    sessions: list[SessionBody]


class EndedBody(BaseModel):
    ended: int = Field(description="How many sessions ended.")


def session_api(guard: SessionGuard, openid: OpenIdCheck) -> APIRouter:
    router = APIRouter(prefix="/_weft/sessions", route_class=ApiRoute, tags=["sessions"])
    store = guard.store

    @router.post("/openid", summary="Sign in by a Matrix OpenID token", responses=_ERRORS)
    async def sign_in_by_openid(request: Request, body: OpenIdBody) -> NewSessionBody:
        try:
            user_id = await openid.user_of(
                OpenIdToken(access_token=body.access_token, matrix_server_name=body.matrix_server_name)
            )
        except OpenIdRefused as error:
            raise ApiError(403, "M_FORBIDDEN", str(error)) from error
        except OpenIdUnchecked as error:
            raise ApiError(503, "M_UNKNOWN", str(error)) from error
        began = await store.begin(user_id, SignInWay.OPENID, request.headers.get("user-agent", ""))
        return NewSessionBody(
            token=began.token, user_id=began.session.user_id, expires_at_ms=began.session.expires_at_ms
        )

    @router.get("", summary="Where you are signed in", responses=_ERRORS)
    async def list_sessions(request: Request) -> SessionsBody:
        signed_in = await guard.require_api(request)
        sessions = await store.of_user(signed_in.user_id)
        return SessionsBody(sessions=[_shown(session, current=signed_in.session) for session in sessions])

    @router.post("/signout", summary="End this session", responses=_ERRORS)
    async def sign_out(request: Request) -> EndedBody:
        signed_in = await guard.require_api(request)
        await store.sign_out(signed_in.session)
        return EndedBody(ended=1)

    @router.post("/signout_everywhere", summary="End all of your sessions", responses=_ERRORS)
    async def sign_out_everywhere(request: Request) -> EndedBody:
        signed_in = await guard.require_api(request)
        return EndedBody(ended=await store.sign_out_everywhere(signed_in.user_id))

    return router


def _shown(session: Session, *, current: Session) -> SessionBody:
    return SessionBody(
        session_id=session.session_id,
        user_id=session.user_id,
        signed_in_by=session.signed_in_by,
        user_agent=session.user_agent,
        created_at_ms=session.created_at_ms,
        expires_at_ms=session.expires_at_ms,
        current=session.session_id == current.session_id,
    )
