"""Styles and scripts of the pages, from memory, at addresses that change with their content.

Our own lie beside this file; those of others are fetched at set-up (scripts/fetch-assets), never committed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, HTTPException, Request, Response

PREFIX: Final = "/_weft/assets"
OWN_FOLDER: Final = Path(__file__).parent / "assets"
VENDOR_FOLDER: Final = Path(__file__).parents[2] / "build" / "assets"
COMPOUND_ENTRY: Final = "compound/compound-design-tokens.css"
COMPOUND_BUNDLE: Final = "vendor/compound.css"

_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"
_IMPORT = re.compile(r'@import url\("\./([^"]+)"\)(?: layer\(([^)]+)\))?([^;]*);')


class AssetsMissing(Exception):
    """The pages can't be shown without their styles and scripts; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class _Asset:
    content: bytes
    media_type: str
    version: str


class Assets:
    """All assets by name: `weft.css`, `vendor/htmx.min.js`. Raises AssetsMissing."""

    def __init__(self, vendor_folder: Path = VENDOR_FOLDER) -> None:
        if not (vendor_folder / COMPOUND_ENTRY).is_file():
            raise AssetsMissing(
                f"{vendor_folder} lacks the browser libraries; scripts/fetch-assets puts them there."
            )
        self._assets = {
            **_read_folder(OWN_FOLDER, ""),
            **_read_folder(vendor_folder, "vendor/"),
            COMPOUND_BUNDLE: _asset(_compound_bundle(vendor_folder).encode(), ".css"),
        }

    def url(self, name: str) -> str:
        """Where a page finds the asset. Raises KeyError when there is none of that name."""
        return f"{PREFIX}/{name}?v={self._assets[name].version}"

    def router(self) -> APIRouter:
        router = APIRouter(prefix=PREFIX, include_in_schema=False)

        @router.get("/{name:path}")
        async def serve(request: Request, name: str, v: str = "") -> Response:
            asset = self._assets.get(name)
            if asset is None:
                raise HTTPException(404)
            headers = {
                "Cache-Control": _FOR_EVER if v == asset.version else _ASK_AGAIN,
                "ETag": f'"{asset.version}"',
            }
            if request.headers.get("if-none-match") == headers["ETag"]:
                return Response(status_code=304, headers=headers)
            return Response(asset.content, media_type=asset.media_type, headers=headers)

        return router


def _read_folder(folder: Path, prefix: str) -> dict[str, _Asset]:
    return {
        prefix + str(path.relative_to(folder)): _asset(path.read_bytes(), path.suffix)
        for path in sorted(folder.rglob("*"))
        if path.suffix in _MEDIA_TYPES
    }


def _asset(content: bytes, suffix: str) -> _Asset:
    return _Asset(content, _MEDIA_TYPES[suffix], hashlib.sha256(content).hexdigest()[:16])


def _compound_bundle(vendor_folder: Path) -> str:
    """Compound's style sheet with its imports in place: one request instead of twenty."""
    entry = vendor_folder / COMPOUND_ENTRY

    def imported(match: re.Match[str]) -> str:
        name, layer, media = match.group(1), match.group(2), match.group(3).strip()
        content = (entry.parent / name).read_text(encoding="utf-8")
        if layer:
            content = f"@layer {layer} {{\n{content}\n}}"
        return f"@media {media} {{\n{content}\n}}" if media else content

    return _IMPORT.sub(imported, entry.read_text(encoding="utf-8"))
