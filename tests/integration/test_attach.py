"""`weft attach`, and a Weft beside a Synapse of the operator's own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.stack import WEFT, free_port_pair, is_alive, run_weft
from tests.synapse import Synapse

SYNAPSE_CONFIG = """
server_name: example.org
listeners:
  - port: 8008
    resources: [{names: [client]}]
modules:
  - module: somebody.elses.Module
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    done = run_weft(
        "init", "--server-name", "example.org", "--homeserver-url", "http://127.0.0.1:8008", data=folder
    )
    assert done.returncode == 0, done.stderr
    return folder


def parts(printed: str) -> dict[str, list[object]]:
    content: dict[str, list[object]] = yaml.safe_load(printed) or {}
    return content


def test_attach_prints_what_is_missing_and_changes_nothing(tmp_path: Path, data: Path) -> None:
    config = tmp_path / "homeserver.yaml"
    config.write_text(SYNAPSE_CONFIG)
    printed = run_weft("attach", "--homeserver-yaml", str(config), data=data)
    assert printed.returncode == 0
    missing = parts(printed.stdout)
    assert missing["app_service_config_files"] == [
        str(data / "registrations" / "weft.yaml"),
        str(data / "registrations" / "wallet.yaml"),
        str(data / "registrations" / "moments.yaml"),
    ]
    module, contacts = missing["modules"]
    assert isinstance(module, dict) and isinstance(contacts, dict)
    assert contacts == {
        "module": "synapse_modules.contacts.Contacts",
        "config": {"service_users": ["@moments:example.org"]},
    }
    assert module["module"] == "synapse_modules.room_extensions.RoomExtensions"
    assert module["config"]["home_user"] == "@weft:example.org"
    assert "openid" in printed.stdout
    assert "which is there already" in printed.stdout
    assert config.read_text() == SYNAPSE_CONFIG


def test_attach_says_nothing_to_a_config_that_has_all(tmp_path: Path, data: Path) -> None:
    config = tmp_path / "homeserver.yaml"
    config.write_text(SYNAPSE_CONFIG)
    missing = parts(run_weft("attach", "--homeserver-yaml", str(config), data=data).stdout)
    whole = yaml.safe_load(SYNAPSE_CONFIG)
    whole["modules"] += missing["modules"]
    whole["app_service_config_files"] = missing["app_service_config_files"]
    whole["rc_invites"] = missing["rc_invites"]
    whole["listeners"][0]["resources"][0]["names"].append("openid")
    config.write_text(yaml.safe_dump(whole))
    printed = run_weft("attach", "--homeserver-yaml", str(config), data=data)
    assert printed.stdout == f"# {config} has all that Weft needs.\n"


def test_attach_refuses_another_servers_config_and_what_is_no_config(tmp_path: Path, data: Path) -> None:
    config = tmp_path / "homeserver.yaml"
    for text, expected in (
        ("server_name: other.example\n", "other.example"),
        ("{", "line"),
        ("- 1\n", "must hold keys and values"),
    ):
        config.write_text(text)
        refused = run_weft("attach", "--homeserver-yaml", str(config), data=data)
        assert refused.returncode == 1
        assert expected in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    gone = run_weft("attach", "--homeserver-yaml", str(tmp_path / "none"), data=data)
    assert (gone.returncode, len(gone.stderr.splitlines())) == (1, 1)


def test_a_synapse_of_ones_own_with_what_attach_prints_works_with_weft(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Synapse(tmp_path / "synapse") as synapse:
        port = free_port_pair()
        made = run_weft("init", "--homeserver-url", synapse.url, "--port", str(port), data=data)
        assert made.returncode == 0
        assert not (data / "homeserver.yaml").exists()
        synapse.start()
        own_config = synapse.folder / "homeserver.yaml"
        printed = run_weft("attach", "--homeserver-yaml", str(own_config), data=data)
        synapse.stop()
        synapse.start(parts(printed.stdout))
        up = run_weft("up", "--detach", data=data, seconds_max=90)
        assert up.returncode == 0, up.stderr
        try:
            pids = json.loads(run_weft("status", "--json", data=data).stdout)["pids"]
            assert pids["synapse"] is None
            assert is_alive(pids["services"])
            doctor = run_weft("doctor", data=data)
            assert doctor.returncode == 0, doctor.stdout
            unknown = run_weft("user", "add", "alice", data=data)
            assert (unknown.returncode, len(unknown.stderr.splitlines())) == (1, 1)
            assert "--homeserver-yaml" in unknown.stderr
            added = run_weft("user", "add", "alice", "--homeserver-yaml", str(own_config), data=data)
            assert added.returncode == 0, added.stderr
        finally:
            assert run_weft("down", data=data).returncode == 0
        assert not is_alive(pids["services"])


def test_the_command_says_its_version() -> None:
    done = subprocess.run([str(WEFT), "--version"], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.startswith("weft ")
