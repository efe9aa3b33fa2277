"""Every setting is documented, and every sample config is one that works."""

from __future__ import annotations

import configparser
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from synapse.config.homeserver import HomeServerConfig

from appservices.chassis.config import CurrencySection, WeftConfig, load_config, load_registration
from appservices.vocabulary.signing import SigningKey
from scripts.weft_cli.config_text import config_text
from scripts.weft_cli.data_folder import PROJECT_ROOT
from scripts.weft_cli.written_documentation import (
    CONFIGURATION_PAGE,
    SAMPLE_CONFIG,
    SAMPLE_HOMESERVER,
    SAMPLE_REGISTRATION,
    written_files,
)

CONFIG_FOLDER = PROJECT_ROOT / "config"


def keys_of(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys_of(kind, f"{prefix}{name}.")
        elif name != "folder":
            yield f"{prefix}{name}"


ALL_KEYS = {*keys_of(WeftConfig), *keys_of(CurrencySection, "wallet.currencies[].")}


def test_every_setting_is_documented_and_every_documented_setting_exists() -> None:
    rows = re.findall(r"^\| `([a-z_.\[\]]+)` \| (.+?) \| .+ \|$", CONFIGURATION_PAGE.read_text(), re.M)
    documented = {key: meaning for key, meaning in rows if "." in key or key in WeftConfig.model_fields}
    documented = {key: meaning for key, meaning in documented.items() if not key.endswith((".yaml", ".db"))}
    assert set(documented) == ALL_KEYS
    assert all(meaning.strip() for meaning in documented.values())


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    for path, text in written_files().items():
        assert path.read_text(encoding="utf-8") == text, f"run scripts/write-docs, because of {path}"


def test_every_sample_is_tested_here() -> None:
    samples = {path for path in CONFIG_FOLDER.rglob("*") if path.is_file()}
    assert samples == {
        SAMPLE_CONFIG,
        SAMPLE_HOMESERVER,
        SAMPLE_REGISTRATION,
        CONFIG_FOLDER / "deploy" / "weft.service",
        CONFIG_FOLDER / "deploy" / "nginx.conf",
    }


def test_the_sample_config_loads_and_shows_every_setting(tmp_path: Path) -> None:
    shutil.copy(SAMPLE_CONFIG, tmp_path / "weft.yaml")
    assert load_config(tmp_path).server_name == "example.org"
    shown = yaml.safe_load(SAMPLE_CONFIG.read_text())
    flat = {
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in shown.items()
        for key in (value if isinstance(value, dict) else [name])
    }
    assert flat == {key for key in ALL_KEYS if "[]" not in key}


def test_the_sample_registration_loads(tmp_path: Path) -> None:
    shutil.copy(SAMPLE_CONFIG, tmp_path / "weft.yaml")
    config = load_config(tmp_path)
    (tmp_path / "registrations").mkdir()
    shutil.copy(SAMPLE_REGISTRATION, tmp_path / config.wallet.registration)
    assert load_registration(config, config.wallet.registration).id == "weft_wallet"


def test_synapse_accepts_the_sample_of_its_config(tmp_path: Path) -> None:
    text = SAMPLE_HOMESERVER.read_text().replace("/var/lib/weft", str(tmp_path))
    for name, registration_id in (("weft", "weft"), ("wallet", "weft_wallet")):
        path = tmp_path / "registrations" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        sample = yaml.safe_load(SAMPLE_REGISTRATION.read_text())
        sample |= {"id": registration_id, "sender_localpart": f"_{name}", "as_token": f"{name}-{'0' * 20}"}
        path.write_text(yaml.safe_dump(sample))
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "homeserver.signing.key").write_text(SigningKey.generate("a_1").to_text())
    (tmp_path / "synapse").mkdir()
    config = HomeServerConfig()
    config.parse_config_dict(yaml.safe_load(text), str(tmp_path), str(tmp_path))
    assert config.server.server_name == "example.org"


@pytest.mark.parametrize("word", ["WEFT_DATA=/var/lib/weft", "weft up", "KillMode=mixed"])
def test_the_systemd_unit_starts_weft_on_its_data_folder(word: str) -> None:
    path = CONFIG_FOLDER / "deploy" / "weft.service"
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.read(path)
    assert unit["Service"]["ExecStart"].split()[:2] == ["/opt/weft/.venv/bin/weft", "up"]
    assert word in path.read_text()


def test_the_proxy_sample_keeps_strangers_from_the_transaction_endpoint() -> None:
    text = (CONFIG_FOLDER / "deploy" / "nginx.conf").read_text()
    assert text.count("{") == text.count("}")
    assert re.search(r"location /_weft/appservice/ \{\s+return 404;", text)


def test_a_new_config_says_what_was_asked_for(tmp_path: Path) -> None:
    values = {
        "server_name": "chat.example:8448",
        "homeserver": {"url": "http://h:1", "public_url": "http://h:1", "managed": False},
        "web": {"port": 77, "public_url": "http://w:77"},
    }
    (tmp_path / "weft.yaml").write_text(config_text(values))
    config = load_config(tmp_path)
    assert (config.server_name, config.web.port, config.homeserver.managed) == (
        "chat.example:8448",
        77,
        False,
    )
    assert config.wallet == WeftConfig.model_validate({**values}).wallet
