"""What of the documentation and samples is made from the code; `scripts/write-docs` writes it."""

from __future__ import annotations

from pathlib import Path

from appservices.chassis.clock import Tokens
from appservices.chassis.config import WeftConfig
from scripts.weft_cli.config_text import config_text, settings_table
from scripts.weft_cli.data_folder import PROJECT_ROOT, DataFolder
from scripts.weft_cli.homeserver import homeserver_text
from scripts.weft_cli.registrations import registration_text

CONFIGURATION_PAGE = PROJECT_ROOT / "docs" / "operators" / "configuration.md"
SAMPLE_CONFIG = PROJECT_ROOT / "config" / "weft.sample.yaml"
SAMPLE_HOMESERVER = PROJECT_ROOT / "config" / "homeserver.sample.yaml"
SAMPLE_REGISTRATION = PROJECT_ROOT / "config" / "registration.sample.yaml"

BEGIN = "<!-- settings: made from the code by scripts/write-docs -->"
END = "<!-- end of settings -->"
_SAMPLE_FOLDER = Path("/var/lib/weft")
_SAMPLE_VALUES = {
    "server_name": "example.org",
    "homeserver": {
        "url": "http://127.0.0.1:8008",
        "public_url": "https://matrix.example.org",
        "managed": True,
    },
    "web": {"port": 8009, "public_url": "https://weft.example.org"},
}


def written_files() -> dict[Path, str]:
    """Each file with what must be in it."""
    page = CONFIGURATION_PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    config = WeftConfig.model_validate({**_SAMPLE_VALUES, "folder": _SAMPLE_FOLDER})
    # Secrets of a sample are zeros, so that nobody takes them for real ones.
    tokens = Tokens(random_bytes=bytes)
    return {
        CONFIGURATION_PAGE: f"{before}{BEGIN}\n\n{settings_table()}\n{END}{after}",
        SAMPLE_CONFIG: config_text(_SAMPLE_VALUES),
        SAMPLE_HOMESERVER: homeserver_text(config, DataFolder(_SAMPLE_FOLDER), authority=None, tokens=tokens),
        SAMPLE_REGISTRATION: registration_text(
            config, service="wallet", registration_id="weft_wallet", localpart="wallet", tokens=tokens
        ),
    }


def main() -> None:
    for path, text in written_files().items():
        path.write_text(text, encoding="utf-8")
