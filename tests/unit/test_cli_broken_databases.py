"""Commands on a database that is damaged, down or nowhere: one sentence with key and database."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest

from tests.stack import run_weft
from tests.synapse import free_port
from tests.unit.test_cli_commands import assert_refused

LOOKING = (["wallet", "balances"], ["wallet", "verify"], ["wallet", "books", "trial-balance"])
COMMANDS = (*LOOKING, ["wallet", "deposit", "alice", "5"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    assert run_weft("init", "--port", str(free_port()), data=tmp_path / "data").returncode == 0
    return tmp_path / "data"


def use_database(data: Path, url: str) -> None:
    config = data / "weft.yaml"
    config.write_text(config.read_text().replace("sqlite:///wallet.db", url))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_damaged_wallet_is_one_sentence(data: Path, command: list[str]) -> None:
    (data / "wallet.db").write_bytes(random.Random(1).randbytes(20_000))
    done = run_weft(*command, data=data)
    assert_refused(done, "weft.yaml: wallet.database: ", "wallet.db can't be used: file is not a database")


def test_a_database_in_a_folder_that_is_not_there_is_one_sentence(data: Path) -> None:
    use_database(data, "sqlite:///nodir/wallet.db")
    for command in LOOKING:
        assert_refused(run_weft(*command, data=data), "wallet.database: ", "there is no folder", "nodir")


def test_a_database_server_that_is_down_is_one_sentence_without_its_password(data: Path) -> None:
    use_database(data, f"postgresql://weft:swordfish@127.0.0.1:{free_port()}/wallet")
    for command in LOOKING:
        done = run_weft(*command, data=data)
        assert_refused(done, "wallet.database: postgresql://weft:***@127.0.0.1:", "can't be used: ")
        assert "swordfish" not in done.stderr


def test_services_whose_database_is_damaged_end_with_the_same_sentence(data: Path) -> None:
    (data / "wallet.db").write_bytes(random.Random(1).randbytes(20_000))
    done = run_weft("serve", data=data)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "weft.yaml: wallet.database: " in last
    assert last.endswith("file is not a database")


def test_services_whose_port_is_taken_say_so_before_anything_else(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run_weft("init", "--port", str(port - 1), data=tmp_path)
        assert_refused(run_weft("serve", data=tmp_path), f"Port {port}", "in use", "web.port")
    assert not (tmp_path / "weft.db").exists()
