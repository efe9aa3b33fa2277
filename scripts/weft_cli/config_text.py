"""The text of a new weft.yaml and of its documentation, both made from the config's own declarations.

So no setting exists that a new config doesn't show and the documentation doesn't explain.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from appservices.chassis.config import CurrencySection, WeftConfig
from appservices.vocabulary.money import Currency
from scripts.weft_cli.yaml_values import as_yaml

_WIDTH = 100
_NOT_SETTINGS = {"folder"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the config: `web.port`, what it means, and its default (None when it is needed)."""

    key: str
    description: str
    default: str | None


def config_text(values: Mapping[str, Any]) -> str:
    """A whole weft.yaml with a comment on every setting; the values override the defaults.

    `values` has the config's shape: `{"server_name": "localhost", "web": {"port": 8009, …}, …}`.
    """
    lines = [
        "# Weft's config. Paths are relative to this file's folder. An unknown key, a wrong type or a file",
        "# that can't be read stops the start with one sentence. More: docs/operators/configuration.md.",
    ]
    for name, field in _fields(WeftConfig):
        section = _section(field)
        lines.append("")
        if section is None:
            value = values[name] if name in values else _default(field)
            lines += [*_comment(field.description or ""), f"{name}: {_flow(value)}"]
            continue
        lines += [*_comment((section.__doc__ or "").strip()), f"{name}:"]
        given = values.get(name, {})
        for key, setting in _fields(section):
            value = given[key] if key in given else _default(setting)
            lines += [f"  {line}" for line in _comment(setting.description or "")]
            lines.append(f"  {key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def settings() -> Iterator[Setting]:
    """Every setting in the order of the file; `wallet.currencies[].code` is inside a list."""
    for name, field in _fields(WeftConfig):
        section = _section(field)
        if section is None:
            yield _setting(name, field)
            continue
        for key, setting in _fields(section):
            yield _setting(f"{name}.{key}", setting)
            if key == "currencies":
                for inner, inner_field in _fields(CurrencySection):
                    yield _setting(f"{name}.{key}[].{inner}", inner_field)


def settings_table() -> str:
    """The settings as Markdown tables, one per section of the file."""
    lines: list[str] = []
    previous = ""
    for setting in settings():
        section = setting.key.partition(".")[0] if "." in setting.key else "The whole"
        if section != previous:
            field = WeftConfig.model_fields.get(section)
            kind = _section(field) if field else None
            about = [(kind.__doc__ or "").strip(), ""] if kind else []
            lines += ["", f"## `{section}`" if kind else f"## {section}", "", *about]
            lines += ["| Setting | Meaning | Default |", "|---|---|---|"]
            previous = section
        default = "needed" if setting.default is None else f"`{setting.default}`"
        lines.append(f"| `{setting.key}` | {setting.description} | {default} |")
    return "\n".join(lines).strip() + "\n"


def _fields(section: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        if name not in _NOT_SETTINGS:
            yield name, field


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _setting(key: str, field: FieldInfo) -> Setting:
    return Setting(
        key=key,
        description=field.description or "",
        default=None if field.is_required() else _flow(_default(field)),
    )


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Currency):
        return as_yaml(value.code)
    return as_yaml(value)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, width=_WIDTH, initial_indent="# ", subsequent_indent="# ")
