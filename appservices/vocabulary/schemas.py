"""JSON Schemas (2020-12) of the blocks and state events that Weft puts on the wire.

Each schema is a file in `schemas/`, named after its block without the `dev.weft.` prefix.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA_NAMES = ("extension", "keys", "receipt", "red_packet")


class BlockInvalid(ValueError):
    """A block does not fit its schema; the message is one sentence that names the place."""


def schema_of(name: str) -> dict[str, Any]:
    """The schema of one of SCHEMA_NAMES, as a JSON object."""
    text = (files(__package__) / "schemas" / f"{name}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def check_block(name: str, content: object) -> None:
    """Raises BlockInvalid when the content does not fit the schema of that name."""
    error = next(iter(sorted(_validator(name).iter_errors(content), key=lambda item: item.json_path)), None)
    if error is not None:
        place = error.json_path.removeprefix("$").removeprefix(".") or "content"
        raise BlockInvalid(f"dev.weft.{name}: {place}: {error.message[:200]}")


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(schema_of(name))
