"""weft.yaml: what is refused, and in which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appservices.chassis.config import (
    ConfigInvalid,
    load_config,
    load_registration,
    load_signing_key,
)
from appservices.vocabulary.signing import SigningKey
from scripts.weft_cli.config_text import config_text

_VALUES = {
    "server_name": "localhost",
    "homeserver": {"url": "http://127.0.0.1:8008", "public_url": "http://127.0.0.1:8008"},
    "web": {"port": 8009, "public_url": "http://127.0.0.1:8009"},
}
GOOD = config_text(_VALUES)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("server_name:", "servername:", "server_name: this key is needed"),
        ("\nlog:", "\nlogs:", "logs: unknown key"),
        ("  port: 8009", "  prot: 8009", "web.port: this key is needed"),
        ("  port: 8009", "  port: '8009'", "web.port: Input should be a valid integer"),
        ("  port: 8009", "  port: 0", "web.port: Input should be greater than or equal to 1"),
        ("  port: 8009", "  port: 8009\n  port: 8010", "line"),
        ("  managed: true", "  managed: yes please", "homeserver.managed: Input should be a valid boolean"),
        ('["EUR"]', '["EURO-CENT"]', "wallet.currencies: EURO-CENT is not an ISO 4217 code"),
        ('["EUR"]', "[]", "wallet.currencies: a list of currencies"),
        ('server_name: "localhost"', 'server_name: "a b"', "server_name: a server name looks like"),
        (
            '"http://127.0.0.1:8009"',
            '"127.0.0.1:8009"',
            "web.public_url: a URL looks like http://127.0.0.1:8008, not “127.0.0.1:8009”",
        ),
        ('"http://127.0.0.1:8009"', '"http://127.0.0.1:99999"', "web.public_url: a URL looks like"),
        ('["EUR"]', '["EUR", "USD", "EUR"]', "wallet.currencies: EUR is given twice"),
        ('["EUR"]', "[{code: HOUR, exponnt: 2}]", "wallet.currencies: exponnt: unknown key"),
        (
            "  payment_max: 10000",
            "  payment_max: 90071992547410",
            "wallet.payment_max: 90071992547410 is too much: with the 2 decimals of EUR the most is "
            "90071992547409",
        ),
        ("  day_max: 20000", "  day_max: 90071992547410", "wallet.day_max: 90071992547410 is too much"),
        ("  chat_max: 200", "  chat_max: -1", "wallet.chat_max: Input should be greater than or equal to 0"),
        ("  operators: []", "  operators: admin", "web.operators: a list of Matrix users, such as"),
        ("  operators: []", "  operators: [admin]", "web.operators: a list of Matrix users, such as"),
        (
            "  operators: []",
            '  operators: ["@admin:elsewhere.example"]',
            "web: operators: @admin:elsewhere.example is not a user of this server",
        ),
        ("sqlite:///wallet.db", "mysql://weft@localhost/wallet", "wallet.database: a database is named by"),
        ("sqlite:///weft.db", "weft.db", "home.database: a database is named by sqlite:///FILE"),
        ("sqlite:///weft.db", "sqlite://", "home.database: an SQLite database needs a file"),
        ('  level: "INFO"', '  level: "LOUD"', "log.level: one of DEBUG, INFO, WARNING, ERROR"),
        ('server_name: "localhost"', "server_name: [", "line"),
    ],
)
def test_a_mistake_in_the_config_is_one_sentence_with_file_and_key(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    assert old in GOOD
    path = tmp_path / "weft.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigInvalid) as invalid:
        load_config(tmp_path)
    assert str(invalid.value).startswith(str(path))
    assert sentence in str(invalid.value)
    assert "\n" not in str(invalid.value)


def test_a_config_that_is_missing_or_no_mapping_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"weft\.yaml can't be read: No such file"):
        load_config(tmp_path)
    (tmp_path / "weft.yaml").write_text("- a list\n")
    with pytest.raises(ConfigInvalid, match="must hold keys and values"):
        load_config(tmp_path)
    (tmp_path / "weft.yaml").write_bytes(b"server_name: \xff\xfe\n")
    with pytest.raises(ConfigInvalid, match="not UTF-8"):
        load_config(tmp_path)


def test_a_secret_file_that_cannot_be_read_is_one_sentence_with_file_and_key(tmp_path: Path) -> None:
    (tmp_path / "weft.yaml").write_text(GOOD)
    config = load_config(tmp_path)

    def load() -> SigningKey:
        return load_signing_key(config, key="wallet.signing_key_file", name=config.wallet.signing_key_file)

    with pytest.raises(ConfigInvalid, match=r"wallet\.signing_key_file: .*can't be read: No such file"):
        load()
    key = tmp_path / "keys" / "wallet.signing.key"
    key.parent.mkdir()
    key.write_text("not a key")
    with pytest.raises(ConfigInvalid, match=r"wallet\.signing_key_file: .*one line"):
        load()
    key.write_text(SigningKey.generate().to_text())
    assert load().key_id == "ed25519:k1"
    if os.geteuid() != 0:
        key.chmod(0)
        with pytest.raises(ConfigInvalid, match="Permission denied"):
            load()


def test_a_registration_without_a_token_is_one_sentence_with_file_and_key(tmp_path: Path) -> None:
    (tmp_path / "weft.yaml").write_text(GOOD)
    config = load_config(tmp_path)
    path = tmp_path / config.home.registration
    path.parent.mkdir()
    path.write_text("id: weft\nurl: null\nas_token: short\nhs_token: short\nsender_localpart: _weft\n")
    with pytest.raises(ConfigInvalid) as invalid:
        load_registration(config, config.home.registration)
    assert str(invalid.value).startswith(f"{path}: as_token:")
    assert "short" not in str(invalid.value)
