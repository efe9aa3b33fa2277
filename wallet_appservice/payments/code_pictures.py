"""QR codes and bar codes as pictures.

SVG with attributes alone, because the pages' content security policy forbids styles inside; black on white in
every theme, because that is what scanners read.
"""

from __future__ import annotations

import io
from typing import Any, Final

import segno
from barcode.codex import Code128

_SCALE: Final = 8
_QUIET_MODULES: Final = 10
"""White beside a bar code on either side (ISO/IEC 15417)."""
_BAR_HEIGHT: Final = 60


def qr_svg(text: str) -> str:
    """A drawing that stands by itself. Error correction M: a screen has no scratches, and a smaller code is
    scanned from farther away."""
    return _drawn(text, scale=_SCALE, dark="#000", light="#fff")


def qr_inline(text: str) -> str:
    """A drawing to be put into a page, where it takes the size of its place."""
    return _drawn(text, svgns=False, omitsize=True, border=2, svgclass="qr", lineclass=None)


def qr_png(text: str) -> tuple[bytes, int]:
    """A picture, and how many pixels its sides have."""
    code = segno.make(text, error="m", micro=False)
    written = io.BytesIO()
    code.save(written, kind="png", scale=_SCALE, dark="#000", light="#fff")
    side_pixels, _ = code.symbol_size(scale=_SCALE)
    return written.getvalue(), int(side_pixels)


def code128_svg(digits: str) -> str:
    """The bar code that tills scan."""
    (modules,) = Code128(digits).build()
    width = len(modules) + 2 * _QUIET_MODULES
    bars, start = [], None
    for place, module in enumerate([*modules, "0"]):
        if module == "1" and start is None:
            start = place
        elif module == "0" and start is not None:
            bars.append(f"M{start + _QUIET_MODULES} 0h{place - start}v{_BAR_HEIGHT}h-{place - start}z")
            start = None
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_BAR_HEIGHT}" '
        f'width="{2 * width}" height="{2 * _BAR_HEIGHT}" shape-rendering="crispEdges">'
        f'<path fill="#fff" d="M0 0h{width}v{_BAR_HEIGHT}H0z"/><path d="{"".join(bars)}"/></svg>'
    )


def _drawn(text: str, **form: Any) -> str:
    written = io.BytesIO()
    segno.make(text, error="m", micro=False).save(written, kind="svg", xmldecl=False, nl=False, **form)
    return written.getvalue().decode()
