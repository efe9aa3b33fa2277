"""A homeserver that hangs, is gone, or doesn't know us; and Ctrl-C before anything is loaded."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appservices.chassis.config import load_config
from scripts.weft_cli import waiting
from tests.stack import WEFT, free_port_pair, run_weft
from tests.synapse import free_port
from tests.unit.test_cli_commands import assert_refused


@pytest.fixture
def hanging_url() -> Iterator[str]:
    """A listener that takes connections and never answers, as a stopped process does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def own_homeserver(data: Path, url: str) -> Path:
    done = run_weft("init", "--homeserver-url", url, "--port", str(free_port_pair()), data=data)
    assert done.returncode == 0, done.stderr
    secret = data / "own.yaml"
    secret.write_text("registration_shared_secret: a secret\n")
    return secret


def test_a_homeserver_that_hangs_is_told_while_it_is_waited_for_and_not_for_long(
    tmp_path: Path, hanging_url: str
) -> None:
    secret = own_homeserver(tmp_path, hanging_url)
    commands = (
        ["wallet", "deposit", "alice", "5"],
        ["user", "add", "alice", "--homeserver-yaml", str(secret)],
    )

    def run(command: list[str]) -> tuple[float, subprocess.CompletedProcess[str]]:
        began = time.monotonic()
        done = run_weft(*command, data=tmp_path)
        return time.monotonic() - began, done

    with ThreadPoolExecutor() as side_by_side:
        for seconds, done in side_by_side.map(run, commands):
            assert seconds < waiting.ANSWER_SECONDS_MAX + 20
            assert done.returncode == 1
            progress, sentence = done.stderr.strip().splitlines()
            assert progress == f"Waiting for the homeserver at {hanging_url} ..."
            assert "did not answer within 10 seconds" in sentence


def test_a_homeserver_of_ones_own_that_is_gone_is_not_to_be_started_by_weft(tmp_path: Path) -> None:
    secret = own_homeserver(tmp_path, f"http://127.0.0.1:{free_port()}")
    for command in (
        ["wallet", "deposit", "alice", "5"],
        ["user", "add", "alice", "--homeserver-yaml", str(secret)],
    ):
        done = run_weft(*command, data=tmp_path)
        assert_refused(done, "start your Synapse, or correct homeserver.url")
        assert "weft up" not in done.stderr


def test_a_homeserver_that_does_not_know_our_token_ends_the_start_at_once(tmp_path: Path) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps({"errcode": "M_UNKNOWN_TOKEN", "error": "?"}).encode()
            self.send_response(401)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        own_homeserver(tmp_path, f"http://127.0.0.1:{server.server_port}")
        done = run_weft("up", data=tmp_path)
        server.shutdown()
    assert_refused(done, "home.registration", "as_token", "weft attach")


def test_doctor_blames_each_thing_once_and_advises_what_helps(tmp_path: Path) -> None:
    own_homeserver(tmp_path, f"http://127.0.0.1:{free_port()}")
    findings = {
        finding["name"]: finding for finding in json.loads(run_weft("doctor", "--json", data=tmp_path).stdout)
    }
    assert "public_url" not in findings["Wallet page"]["remedy"]
    assert not any(finding["detail"].endswith("..") for finding in findings.values())
    config = load_config(tmp_path)
    (tmp_path / "weft.yaml").write_text("server_name: [\n")
    [broken] = json.loads(run_weft("doctor", "--json", data=config.folder).stdout)
    assert "weft init" not in broken["remedy"]


def test_ctrl_c_while_the_command_is_loaded_is_quiet() -> None:
    code = """
    import sys
    class Interrupted:
        def find_spec(self, name, path=None, target=None):
            if name == "scripts.weft_cli.main":
                raise KeyboardInterrupt
    sys.meta_path.insert(0, Interrupted())
    from scripts.weft_cli.entry import main
    main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert "scripts.weft_cli.entry" in WEFT.read_text()
