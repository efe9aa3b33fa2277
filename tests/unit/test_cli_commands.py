"""`weft init` and what commands refuse, run as people run them; nothing is started here."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from appservices.chassis.config import load_config, load_registration
from scripts.weft_cli.user import make_password
from tests.stack import WEFT, run_weft

SECRETS = ("weft.yaml", "homeserver.yaml", "registrations/wallet.yaml", "keys/wallet.signing.key")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def init(data: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return run_weft("init", *flags, data=data)


def contents(data: Path) -> dict[str, bytes]:
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def assert_refused(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for part in expected:
        assert part in done.stderr


def test_init_writes_a_data_folder_that_loads_and_keeps_its_secrets(data: Path) -> None:
    assert init(data, "--port", "9100").returncode == 0
    config = load_config(data)
    assert (config.web.port, config.homeserver.url) == (9101, "http://127.0.0.1:9100")
    tokens = set()
    for registration, user in ((config.home.registration, "@weft"), (config.wallet.registration, "@wallet")):
        loaded = load_registration(config, registration)
        tokens |= {loaded.as_token, loaded.hs_token}
        [namespace] = yaml.safe_load((data / registration).read_text())["namespaces"]["users"]
        assert namespace["exclusive"] is True
        assert re.match(namespace["regex"], f"{user}:localhost")
        assert not re.match(namespace["regex"], f"{user}:localhost:8448")
        assert loaded.url is not None
        assert loaded.url.startswith("http://127.0.0.1:9101/_weft/appservice/")
    assert len(tokens) == 4
    for name in SECRETS:
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_a_second_init_says_what_is_there_and_changes_nothing(data: Path) -> None:
    init(data)
    before = contents(data)
    again = init(data)
    assert again.returncode == 0
    assert again.stdout.count("is there") == len(before)
    assert "Nothing was missing" in again.stdout
    assert contents(data) == before


def test_a_half_done_init_is_completed(data: Path) -> None:
    init(data, "--server-name", "localhost:9448", "--port", "9100")
    before = contents(data)
    for lost in ("homeserver.yaml", "registrations/wallet.yaml", "keys/wallet.signing.key"):
        (data / lost).unlink()
    completed = init(data)
    assert completed.returncode == 0
    assert completed.stdout.count("written") == 3
    after = contents(data)
    assert set(after) == set(before)
    assert after["weft.yaml"] == before["weft.yaml"]
    homeserver = yaml.safe_load(after["homeserver.yaml"])
    assert homeserver["server_name"] == "localhost:9448"
    assert homeserver["registration_shared_secret"]


@pytest.mark.parametrize(
    ("key", "database"),
    [("wallet.signing.key", "wallet.db"), ("homeserver.signing.key", "synapse/homeserver.db")],
)
def test_a_lost_signing_key_is_never_made_anew_beside_its_database(
    data: Path, key: str, database: str
) -> None:
    init(data)
    (data / "keys" / key).unlink()
    (data / database).touch()
    assert_refused(init(data), key, "backup")
    assert not (data / "keys" / key).exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--server-name", "no name"], "not a server name"),
        (["--server-name", "localhost:99999"], "not a server name"),
        (["--server-name", "Example.org"], "example.org"),
        (["--port", "65535"], "--port"),
        (["--port", "0"], "--port"),
        (["--server-name", "localhost:9101", "--port", "9100"], "9101"),
        (["--ca", "/tmp/nowhere"], "--ca"),
    ],
)
def test_flags_that_can_never_work_are_refused_before_anything_is_written(
    data: Path, flags: list[str], expected: str
) -> None:
    for command in ("init", "up"):
        assert_refused(run_weft(command, *flags, data=data), expected)
        assert not (data / "weft.yaml").exists()


def test_a_homeserver_with_a_port_in_its_name_federates_there_by_tls(data: Path, tmp_path: Path) -> None:
    done = init(data, "--server-name", "localhost:9448", "--port", "9100", "--ca", str(tmp_path / "ca"))
    assert done.returncode == 0
    config = yaml.safe_load((data / "homeserver.yaml").read_text())
    clients, federation = config["listeners"]
    assert (clients["port"], clients["tls"], clients["bind_addresses"]) == (9100, False, ["127.0.0.1"])
    assert clients["resources"][0]["names"] == ["client", "openid"]
    assert (federation["port"], federation["tls"]) == (9448, True)
    assert federation["resources"][0]["names"] == ["federation"]
    assert config["federation_custom_ca_list"] == [str(tmp_path / "ca" / "ca.pem")]
    assert Path(config["tls_certificate_path"]).exists()
    other = run_weft("up", "--ca", str(tmp_path / "other"), data=data)
    assert_refused(other, str(tmp_path / "ca"))


def test_two_that_are_made_at_once_share_one_authority(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            [
                *(str(WEFT), "init", "--data", str(tmp_path / name), "--ca", str(tmp_path / "ca")),
                *("--server-name", f"localhost:{port}", "--port", str(port + 100)),
            ],
            stdout=subprocess.DEVNULL,
        )
        for name, port in (("a", 9448), ("b", 9458))
    ]
    assert [process.wait(60) for process in started] == [0, 0]
    verified = [
        subprocess.run(
            [
                "openssl",
                "verify",
                "-CAfile",
                tmp_path / "ca" / "ca.pem",
                tmp_path / name / "keys/federation.pem",
            ],
            capture_output=True,
            check=False,
        ).returncode
        for name in ("a", "b")
    ]
    assert verified == [0, 0]


def test_the_data_folder_is_named_before_or_after_the_command_or_by_the_environment(tmp_path: Path) -> None:
    for arguments, data in (
        (["--data", str(tmp_path / "before"), "init"], None),
        (["init", "--data", str(tmp_path / "after")], None),
        (["init"], tmp_path / "environment"),
    ):
        assert run_weft(*arguments, data=data).returncode == 0
    for name in ("before", "after", "environment"):
        assert (tmp_path / name / "weft.yaml").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["doctor"],
        ["wallet", "balances"],
        ["wallet", "verify"],
        ["wallet", "deposit", "alice", "5"],
        ["user", "add", "alice"],
        ["serve"],
        ["attach", "--homeserver-yaml", "none"],
    ],
)
def test_a_command_without_a_config_names_the_file_that_is_missing(data: Path, arguments: list[str]) -> None:
    done = run_weft(*arguments, data=data)
    assert done.returncode == 1
    assert f"{data / 'weft.yaml'} can't be read" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not data.exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["alice", "-5", "EUR"], "can't be negative"),
        (["alice", "-5EUR"], "can't be negative"),
        (["alice", "EUR", "-5"], "can't be negative"),
        (["alice", "0"], "more than zero"),
        (["alice", "1.2345", "EUR"], "2 decimals"),
        (["alice", "5", "GBP"], "not a currency"),
        (["alice", "five"], "is not an amount"),
        (["alice", "NaN"], "is not an amount"),
        (["alice", "9" * 30], "more than any payment"),
        (["@alice:elsewhere", "5"], "not a user of localhost"),
        (["@alice", "5"], "not a user of localhost"),
        (["Älice", "5"], "can't be a user's name"),
        (["alice", "5", "--id", "XYZ"], "--id takes 32 digits"),
    ],
)
def test_a_bad_deposit_is_one_sentence_and_no_ledger_is_made(
    data: Path, words: list[str], expected: str
) -> None:
    init(data)
    for command in ("deposit", "withdraw"):
        assert_refused(run_weft("wallet", command, *words, data=data), expected)
    assert not (data / "wallet.db").exists()


def test_looking_makes_no_database(data: Path) -> None:
    init(data)
    assert_refused(run_weft("wallet", "verify", data=data), "no ledger")
    assert run_weft("doctor", data=data).returncode == 1
    assert not (data / "wallet.db").exists()
    assert not (data / "weft.db").exists()


def test_a_made_password_is_long_and_never_the_same() -> None:
    made = {make_password() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"[a-z2-9]{4}(-[a-z2-9]{4}){4}", password) for password in made)


def test_commands_that_only_look_start_quickly() -> None:
    code = "import sys, scripts.weft_cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"nio", "fastapi", "sqlalchemy", "synapse"} & set(loaded.stdout.split())
