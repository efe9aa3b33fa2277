"""What was mistyped is told before anything is written or started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.stack import free_port_pair, run_weft
from tests.unit.test_cli_commands import assert_refused, contents


@pytest.mark.parametrize("url", ["nonsense", "ftp://example.org", "http://", "http://localhost:99999"])
def test_a_homeserver_url_that_is_none_leaves_nothing_behind(tmp_path: Path, url: str) -> None:
    data = tmp_path / "data"
    assert_refused(run_weft("init", "--homeserver-url", url, data=data), "--homeserver-url", url)
    assert not data.exists()
    assert run_weft("init", "--homeserver-url", "http://localhost:8008", data=data).returncode == 0


@pytest.mark.parametrize("flags", [[], ["--detach"]])
def test_a_port_in_use_is_told_before_a_data_folder_is_made(tmp_path: Path, flags: list[str]) -> None:
    data = tmp_path / "data"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert_refused(run_weft("up", *flags, "--port", str(port), data=data), str(port), "in use")
    assert not data.exists()


@pytest.mark.parametrize("service", ["weft", "wallet"])
def test_a_mistyped_registration_is_not_made_anew(tmp_path: Path, service: str) -> None:
    data = tmp_path / "data"
    run_weft("init", "--port", str(free_port_pair()), data=data)
    config = data / "weft.yaml"
    config.write_text(
        config.read_text().replace(f"registrations/{service}.yaml", "registrations/nothing.yaml")
    )
    before = contents(data)
    key = {"weft": "home", "wallet": "wallet"}[service] + ".registration"
    for command in ("init", "up"):
        done = run_weft(command, data=data)
        assert_refused(done, f"weft.yaml: {key}: ", "nothing.yaml", "app_service_config_files")
    after = contents(data)
    assert {name: after[name] for name in before} == before
    assert not (data / "registrations" / "nothing.yaml").exists()


def test_a_registration_that_synapse_does_not_read_is_told_at_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    run_weft("init", "--port", str(free_port_pair()), data=data)
    homeserver = data / "homeserver.yaml"
    lines = homeserver.read_text().splitlines(keepends=True)
    homeserver.write_text("".join(line for line in lines if "registrations/wallet.yaml" not in line))
    assert_refused(run_weft("up", data=data), "wallet.registration", str(homeserver))
