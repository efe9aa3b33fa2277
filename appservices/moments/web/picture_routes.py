"""Pictures up and down. Each request for one is judged as if the Moment itself were asked for, so that its
address is worth nothing to whom the Moment is not for."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from appservices.chassis.database import Write
from appservices.chassis.homeserver import MatrixRefused, MatrixUnavailable
from appservices.chassis.signed_in import FormNotOurs
from appservices.chassis.web_errors import BodyTooLarge, limit_body
from appservices.chassis.web_security import CSRF_HEADER
from appservices.moments import store
from appservices.moments.pictures import VIDEO_BYTES_MAX, VIDEO_TYPES
from appservices.moments.records import VIDEO, ContentUnreadable, MomentId, Part, is_id
from appservices.moments.web.shell import PATH, MomentsShell
from appservices.vocabulary.ids import UserId, is_user_id
from appservices.vocabulary.languages import _

UPLOADS_WAITING_MAX: Final = 100
"""Of one person, not posted yet; the oldest go first."""


class UploadRoute(APIRoute):
    """A route that takes one picture or video as its body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(limit_body(request, VIDEO_BYTES_MAX))
            except BodyTooLarge:
                sentence = _("That file is too large: pictures have up to 20 MB, videos up to 50 MB.")
                return JSONResponse({"problem": sentence}, status_code=413)

        return answer


class PictureRoutes:
    def __init__(self, shell: MomentsShell) -> None:
        self._shell = shell
        self._moments = shell.moments

    def add_to(self, router: APIRouter) -> None:
        router.get("/pictures/{moment_id}/{part_id}")(self._picture)
        router.get("/cover/{person}")(self._cover)
        router.get("/uploads/{upload_id}")(self._uploaded)

    def add_uploads_to(self, router: APIRouter) -> None:
        router.post("/uploads")(self._upload)

    async def _picture(self, request: Request) -> Response:
        viewer = await self._shell.addresses.viewer(request, self._shell.guard)
        moment_id, part_id = request.path_params["moment_id"], request.path_params["part_id"]
        if viewer is None or not is_id(moment_id):
            return _nothing()
        seen = await self._moments.viewing.one(viewer, MomentId(moment_id))
        parts = () if seen is None else seen.moment.content.parts
        part = next((part for part in parts if part.part_id == part_id), None)
        return await self._sent(request, part)

    async def _cover(self, request: Request) -> Response:
        viewer = await self._shell.addresses.viewer(request, self._shell.guard)
        person = request.path_params["person"]
        if viewer is None or not is_user_id(person):
            return _nothing()
        return await self._sent(request, await self._moments.viewing.cover(viewer, UserId(person)))

    async def _uploaded(self, request: Request) -> Response:
        """A picture that is not posted yet, for whoever has chosen it."""
        viewer = await self._shell.addresses.viewer(request, self._shell.guard)
        upload_id = request.path_params["upload_id"]
        if viewer is None or not is_id(upload_id):
            return _nothing()
        async with self._moments.actions.database.read() as work:
            part = (await store.uploads_of(work, viewer, [upload_id])).get(upload_id)
        return await self._sent(request, part, small=True)

    async def _sent(self, request: Request, part: Part | None, *, small: bool = False) -> Response:
        if part is None:
            return _nothing()
        small = small or request.query_params.get("small") == "1"
        mxc = part.preview_mxc if small and part.preview_mxc else part.mxc
        media_type = "image/jpeg" if mxc == part.preview_mxc else part.media_type
        # The browser may keep it, and asks each time whether it still may show it.
        tag = f'"{part.part_id}{"s" if small else ""}"'
        headers = {"Cache-Control": "private, no-cache", "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        try:
            data = await self._moments.pictures.media.download(mxc)
        except (MatrixRefused, MatrixUnavailable):
            return _nothing()
        return Response(data, media_type=media_type, headers=headers)

    async def _upload(self, request: Request) -> Response:
        signed_in = await self._shell.guard.of_request(request)
        if signed_in is None:
            return JSONResponse({"problem": _("Please sign in again.")}, status_code=401)
        try:
            self._shell.guard.check_own_page(request, signed_in, request.headers.get(CSRF_HEADER, ""))
        except FormNotOurs:
            sentence = _("This page is out of date: load it again, then retry.")
            return JSONResponse({"problem": sentence}, status_code=403)
        body = await request.body()
        part_id = self._shell.tokens.hex()
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        keep_place = request.query_params.get("keep_place") == "1"
        try:
            if media_type in VIDEO_TYPES:
                part = await self._moments.pictures.take_video(body, part_id, media_type)
            else:
                part = await self._moments.pictures.take(body, part_id, keep_place=keep_place)
        except ContentUnreadable as unreadable:
            return JSONResponse({"problem": _(str(unreadable))}, status_code=422)
        except (MatrixRefused, MatrixUnavailable):
            sentence = _("Your homeserver does not answer right now. Nothing is lost: try again.")
            return JSONResponse({"problem": sentence}, status_code=503)
        await self._keep(signed_in.user_id, part_id, part)
        address = self._shell.addresses.of(signed_in)
        url = address(f"{PATH}/uploads/{part_id}")
        return JSONResponse({"id": part_id, "url": url, "video": part.kind == VIDEO})

    async def _keep(self, person: UserId, upload_id: str, part: Part) -> None:
        writes: list[Write] = [store.upload_write(upload_id, person, part, now_ms=self._shell.clock())]
        async with self._moments.actions.database.begin() as work:
            old = await store.oldest_uploads(work, person, beyond=UPLOADS_WAITING_MAX - 1)
            await work.apply([*(store.forget_upload_write(each) for each in old), *writes])
            await work.commit()


def _nothing() -> Response:
    """For a picture that there is not, and for one that is not for whoever asks."""
    return Response(json.dumps({}), status_code=404, media_type="application/json")
