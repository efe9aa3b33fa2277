"""Single values in a YAML file, read and changed with every other byte kept, comments included.

What a person wrote in a config file stays theirs: a flag that changes the port changes the port alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import yaml

ValuePath = tuple[str | int, ...]
"""The keys and list positions that lead to a value: `("listeners", 0, "port")`."""
Scalar = str | int | bool


def scalars(text: str) -> dict[ValuePath, Scalar | None]:
    """Every single value of the file by its path. Raises yaml.YAMLError when it isn't YAML."""
    found: dict[ValuePath, Scalar | None] = {}
    for path, node in _scalar_nodes(text).items():
        found[path] = yaml.safe_load(text[node.start_mark.index : node.end_mark.index])
    return found


def with_values(text: str, values: Mapping[ValuePath, Scalar]) -> str:
    """The text with these values, all of which must be there already, put in place of the old ones.

    Raises KeyError when a path leads to no single value.
    """
    nodes = _scalar_nodes(text)
    changes = sorted(((nodes[path], value) for path, value in values.items()), key=_start, reverse=True)
    for node, value in changes:
        text = text[: node.start_mark.index] + as_yaml(value) + text[node.end_mark.index :]
    return text


def as_yaml(value: Scalar | None) -> str:
    """A single value as YAML on one line; every JSON string is a YAML string."""
    return json.dumps(value, ensure_ascii=False)


def _start(change: tuple[yaml.ScalarNode, Scalar]) -> int:
    return change[0].start_mark.index


def _scalar_nodes(text: str) -> dict[ValuePath, yaml.ScalarNode]:
    found: dict[ValuePath, yaml.ScalarNode] = {}

    def visit(node: yaml.Node | None, path: ValuePath) -> None:
        if isinstance(node, yaml.ScalarNode):
            found[path] = node
        elif isinstance(node, yaml.SequenceNode):
            for position, item in enumerate(node.value):
                visit(item, (*path, position))
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                visit(value, (*path, str(key.value)))

    visit(yaml.compose(text, Loader=yaml.SafeLoader), ())
    return found
