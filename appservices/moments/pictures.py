"""Pictures: made fit to be shown, freed of what a camera says about where it was, put into the media store.

A picture is decoded and written anew, so that nothing travels along but what one sees; only where its owner
says so the camera's data stay. What can't be read as a picture is refused with one sentence. The media store
is Synapse's: what is in it is found by its mxc:// address alone, which the pages never show to anybody.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from PIL import Image, ImageOps, UnidentifiedImageError
from sqlalchemy import insert, select

from appservices.chassis.database import Database
from appservices.moments.records import PICTURE, VIDEO, Content, ContentUnreadable, Part
from appservices.moments.tables import sheets
from appservices.vocabulary.ids import derived_id
from appservices.vocabulary.languages import known

PICTURE_BYTES_MAX: Final = 20 * 1024 * 1024
VIDEO_BYTES_MAX: Final = 50 * 1024 * 1024
VIDEO_TYPES: Final = ("video/mp4", "video/webm", "video/quicktime")
PIXELS_READ_MAX: Final = 64_000_000
"""More than phones have; a bomb that unfolds to gigapixels is refused by its header."""
SIDE_MAX: Final = 2_560
PREVIEW_SIDE_MAX: Final = 640
CELL_SIDE: Final = 360
"""Of one picture on a sheet."""
CELL_GAP: Final = 6
_QUALITY: Final = 87
_AT_ONCE_MAX: Final = 2
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")


class Media(Protocol):
    """The homeserver's media store. Raises MatrixRefused and MatrixUnavailable."""

    async def download(self, mxc: str) -> bytes: ...

    async def upload(self, data: bytes, *, media_type: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture as it will be shown."""

    data: bytes
    media_type: str
    width: int
    height: int
    preview: bytes


class Pictures:
    """Takes pictures in, and makes sheets of several."""

    def __init__(self, database: Database, media: Media) -> None:
        self._database = database
        self.media = media
        # Decoding takes a core and much memory.
        self._places = asyncio.Semaphore(_AT_ONCE_MAX)

    async def take(self, data: bytes, part_id: str, *, keep_place: bool, alt: str = "") -> Part:
        """A picture that somebody gives. Raises ContentUnreadable."""
        if len(data) > PICTURE_BYTES_MAX:
            raise ContentUnreadable(known("That picture is too large: up to 20 MB can be read."))
        async with self._places:
            prepared = await asyncio.to_thread(prepare, data, keep_place=keep_place)
        mxc = await self.media.upload(prepared.data, media_type=prepared.media_type)
        preview_mxc = await self.media.upload(prepared.preview, media_type="image/jpeg")
        return Part(
            part_id=part_id,
            kind=PICTURE,
            mxc=mxc,
            media_type=prepared.media_type,
            size_bytes=len(prepared.data),
            width=prepared.width,
            height=prepared.height,
            preview_mxc=preview_mxc,
            alt=alt,
        )

    async def take_video(
        self, data: bytes, part_id: str, media_type: str, *, width: object = 0, height: object = 0
    ) -> Part:
        """A video that somebody gives, as it is. Raises ContentUnreadable."""
        if len(data) > VIDEO_BYTES_MAX:
            raise ContentUnreadable(known("That video is too large: up to 50 MB can be taken."))
        if media_type not in VIDEO_TYPES:
            raise ContentUnreadable(known("That is no video that can be shown: it may be MP4 or WebM."))
        return Part.from_json(
            {
                "id": part_id,
                "kind": VIDEO,
                "mxc": await self.media.upload(data, media_type=media_type),
                "media_type": media_type,
                "bytes": len(data),
                "width": width,
                "height": height,
            }
        )

    async def sheet(self, content: Content) -> Part | None:
        """What stands for all pictures of a Moment in a room: the one that there is, or a sheet of them."""
        if len(content.parts) <= 1:
            return content.parts[0] if content.parts else None
        sheet_id = derived_id("sheet", *(part.mxc for part in content.parts))
        async with self._database.read() as work:
            found = await work.execute(select(sheets.c.part).where(sheets.c.sheet_id == sheet_id))
            text = found.scalar_one_or_none()
        if text is not None:
            return Part.from_json(json.loads(text))
        pictures = [await self.media.download(part.preview_mxc or part.mxc) for part in content.parts]
        async with self._places:
            prepared = await asyncio.to_thread(compose, pictures)
        part = Part(
            part_id=sheet_id,
            kind=PICTURE,
            mxc=await self.media.upload(prepared.data, media_type="image/jpeg"),
            media_type="image/jpeg",
            size_bytes=len(prepared.data),
            width=prepared.width,
            height=prepared.height,
        )
        async with self._database.begin() as work:
            again = await work.execute(select(sheets.c.sheet_id).where(sheets.c.sheet_id == sheet_id))
            if again.first() is None:
                await work.execute(insert(sheets).values(sheet_id=sheet_id, part=json.dumps(part.to_json())))
                await work.commit()
        return part


def prepare(data: bytes, *, keep_place: bool) -> Prepared:
    """Decodes, turns upright, makes smaller, and writes anew. Raises ContentUnreadable."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > PIXELS_READ_MAX:
                raise ContentUnreadable(known("That picture has too many pixels."))
            exif = image.getexif() if keep_place else Image.Exif()
            is_moving = image.format == "GIF" and getattr(image, "n_frames", 1) > 1
            upright = ImageOps.exif_transpose(image)
            preview = _written(_fitted(upright, PREVIEW_SIDE_MAX), "JPEG")
            if is_moving:
                # A GIF has no place in it, and one that moves would stand still.
                return Prepared(data, "image/gif", image.width, image.height, preview)
            fitted = _fitted(upright, SIDE_MAX)
            kind = "PNG" if _is_transparent(fitted) else "JPEG"
            # The picture is upright now.
            exif.pop(0x0112, None)
            written = _written(fitted, kind, exif=exif if keep_place else None)
            return Prepared(written, f"image/{kind.lower()}", fitted.width, fitted.height, preview)
    except ContentUnreadable:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise ContentUnreadable(
            known("That is no picture that can be read: it may be JPEG, PNG, WebP or GIF.")
        ) from error


def compose(pictures: Sequence[bytes]) -> Prepared:
    """Several pictures as one, in rows of two or three."""
    columns = 2 if len(pictures) in (2, 4) else 3
    rows = -(-len(pictures) // columns)
    size = (
        columns * CELL_SIDE + (columns - 1) * CELL_GAP,
        rows * CELL_SIDE + (rows - 1) * CELL_GAP,
    )
    sheet = Image.new("RGB", size, "white")
    for index, data in enumerate(pictures):
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            cell = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (CELL_SIDE, CELL_SIDE))
        row, column = divmod(index, columns)
        sheet.paste(cell, (column * (CELL_SIDE + CELL_GAP), row * (CELL_SIDE + CELL_GAP)))
    return Prepared(_written(sheet, "JPEG"), "image/jpeg", sheet.width, sheet.height, b"")


def _fitted(image: Image.Image, side_max: int) -> Image.Image:
    fitted = image.copy()
    if fitted.mode in ("P", "LA", "I;16", "1"):
        fitted = fitted.convert("RGBA" if _is_transparent(fitted) else "RGB")
    fitted.thumbnail((side_max, side_max))
    return fitted


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA") or "transparency" in image.info


def _written(image: Image.Image, kind: str, *, exif: Image.Exif | None = None) -> bytes:
    if kind == "JPEG" and image.mode != "RGB":
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image.convert("RGBA"), mask=image.convert("RGBA").getchannel("A"))
        image = ground
    # What else came with the picture (comments, XMP) is in `info`, and would be written again.
    image.info = {}
    out = io.BytesIO()
    options: dict[str, object] = {"quality": _QUALITY, "optimize": True} if kind == "JPEG" else {}
    if exif is not None:
        options["exif"] = exif
    image.save(out, kind, **options)
    return out.getvalue()
