"""The data folder: where one Weft keeps its config, keys, databases and logs, and how commands find it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from appservices.chassis.config import CONFIG_NAME

PROJECT_ROOT = Path(__file__).resolve().parents[2]
FOLDER_VARIABLE = "WEFT_DATA"

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar=FOLDER_VARIABLE,
        metavar="FOLDER",
        help="The data folder. Default: data/ in Weft's own folder, or else ./data.",
        show_default=False,
    ),
]
"""`--data FOLDER`, which every command takes."""


@dataclass(frozen=True, slots=True)
class DataFolder:
    """The names of what is in a data folder; says nothing about whether it is there."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / CONFIG_NAME

    @property
    def homeserver_config(self) -> Path:
        return self.path / "homeserver.yaml"

    @property
    def homeserver_log_config(self) -> Path:
        return self.path / "synapse" / "log.yaml"

    @property
    def homeserver_database(self) -> Path:
        return self.path / "synapse" / "homeserver.db"

    @property
    def homeserver_signing_key(self) -> Path:
        return self.path / "keys" / "homeserver.signing.key"

    @property
    def certificate(self) -> Path:
        return self.path / "keys" / "federation.pem"

    @property
    def certificate_key(self) -> Path:
        return self.path / "keys" / "federation.key"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """What is true only while Weft runs."""
        return self.path / "run"


def find_data_folder(given: Path | None) -> DataFolder:
    """The folder that was named, or the default one. It need not exist."""
    if given is not None:
        return DataFolder(Path(os.path.abspath(given.expanduser())))  # noqa: PTH100 - keeps symbolic links
    root = PROJECT_ROOT if (PROJECT_ROOT / "setup.cfg").is_file() else Path.cwd()
    return DataFolder(root / "data")
