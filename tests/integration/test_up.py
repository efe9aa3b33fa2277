"""`weft up`, `down` and `status` with real processes, as a newcomer and an impatient operator use them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.stack import WEFT, Stack, free_port_pair, is_alive, run_weft, wait_until
from tests.synapse import MatrixRefused

SECOND_START_SECONDS_MAX = 30.0
"""On a machine that does much else; alone it takes a few."""


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Weft of this module's own, because its tests stop it, kill it and move it."""
    stack = Stack(tmp_path_factory.mktemp("up"))
    yield stack
    stack.stop()


@pytest.fixture
def running(own_stack: Stack) -> Stack:
    if "supervisor" not in own_stack.pids():
        own_stack.start()
    own_stack.wait_until_ready()
    return own_stack


class Terminal:
    """A command at a terminal of its own, with keys to press."""

    def __init__(self, *command: str) -> None:
        self._keys, screen = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            command,
            stdin=screen,
            stdout=screen,
            stderr=screen,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(screen)

    def read_until(self, text: str, *, seconds_max: float) -> None:
        deadline = time.monotonic() + seconds_max
        while text not in self.text:
            assert time.monotonic() < deadline, f"{text!r} was not shown, but: {self.text}"
            if select.select([self._keys], [], [], 0.1)[0]:
                self.text += os.read(self._keys, 65536).decode(errors="replace")

    def press_ctrl_c(self) -> None:
        os.write(self._keys, b"\x03")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._keys)


def test_up_tells_a_newcomer_what_to_do_and_ctrl_c_stops_everything(own_stack: Stack) -> None:
    own_stack.stop()
    terminal = Terminal(str(WEFT), "up", "--data", str(own_stack.data), "--port", str(own_stack.port))
    try:
        terminal.read_until("Ctrl-C stops it.", seconds_max=90)
        assert own_stack.url in terminal.text
        assert own_stack.web_url in terminal.text
        assert "weft user add alice" in terminal.text
        assert "weft down" in terminal.text
        pids = own_stack.pids()
        assert set(pids) == {"supervisor", "synapse", "services"}
        terminal.press_ctrl_c()
        terminal.read_until("Stopped.", seconds_max=90)
        assert terminal.process.wait(10) == 0
        assert not any(is_alive(pid) for pid in pids.values())
        assert "Traceback" not in terminal.text
    finally:
        terminal.close()


async def test_a_second_start_is_quick_and_has_the_same_data(running: Stack) -> None:
    alice = await running.register("alice.again")
    running.stop()
    started = time.monotonic()
    running.start()
    assert time.monotonic() - started < SECOND_START_SECONDS_MAX
    assert (await running.login("alice.again")).user_id == alice.user_id


def test_status_names_the_processes_and_addresses_and_down_ends_them(running: Stack) -> None:
    pids = running.pids()
    shown = running.weft("status")
    assert shown.returncode == 0
    for expected in ("running", running.url, running.web_url, *(str(pid) for pid in pids.values())):
        assert expected in shown.stdout
    assert running.weft("down").returncode == 0
    assert not any(is_alive(pid) for pid in pids.values())
    stopped = running.weft("status")
    assert (stopped.returncode, stopped.stdout.split()[0]) == (3, "stopped")
    assert json.loads(running.weft("status", "--json").stdout)["state"] == "stopped"
    again = running.weft("down")
    assert again.returncode == 0
    assert "isn't running" in again.stdout


def test_a_second_up_in_the_same_folder_is_told_who_runs_there(running: Stack) -> None:
    pids = running.pids()
    refused = running.weft("up")
    assert refused.returncode == 1
    assert_one_sentence(refused.stderr, str(running.data), str(pids["supervisor"]))
    assert running.pids() == pids


def test_a_killed_supervisor_takes_its_programs_along_and_is_not_believed_to_run(running: Stack) -> None:
    pids = running.pids()
    running.kill("supervisor")
    wait_until(lambda: not any(is_alive(pid) for pid in pids.values()))
    assert running.weft("status").stdout.startswith("stopped")
    running.start()
    assert set(running.pids()) == set(pids)


@pytest.mark.parametrize("part", ["synapse", "services"])
def test_a_killed_program_is_started_again(running: Stack, part: str) -> None:
    before = running.pids()
    running.kill("synapse" if part == "synapse" else "services")
    wait_until(lambda: running.pids().get(part, before[part]) != before[part], seconds_max=90)
    running.wait_until_ready()
    assert running.pids()["supervisor"] == before["supervisor"]


async def test_registration_is_open_for_the_runs_that_ask_for_it(running: Stack) -> None:
    running.stop()
    assert running.weft("up", "--detach", seconds_max=90).returncode == 0
    with pytest.raises(MatrixRefused) as refused:
        await running.register("stranger")
    assert refused.value.status == 403
    running.restart()
    await running.register("stranger")


def test_a_port_in_use_is_one_sentence_that_names_it(tmp_path: Path) -> None:
    port = free_port_pair()
    for taken in (port, port + 1):
        with socket.socket() as other:
            other.bind(("127.0.0.1", taken))
            other.listen()
            for how in ([], ["--detach"]):
                refused = run_weft("up", "--port", str(port), *how, data=tmp_path / "data")
                assert refused.returncode == 1
                assert_one_sentence(refused.stderr, str(taken), "in use", "--port")
    assert run_weft("status", data=tmp_path / "data").returncode == 3


async def test_another_port_moves_everything_and_leaves_comments_alone(running: Stack) -> None:
    running.stop()
    config = running.data / "homeserver.yaml"
    config.write_text(config.read_text() + "\n# A remark of mine.\nmax_upload_size: 7M\n")
    old, running.port = running.port, free_port_pair()
    running.url = f"http://127.0.0.1:{running.port}"
    running.web_url = f"http://127.0.0.1:{running.port + 1}"
    running.start()
    registrations = [f"registrations/{service}.yaml" for service in ("weft", "wallet", "moments")]
    for name in ("weft.yaml", "homeserver.yaml", *registrations):
        text = (running.data / name).read_text()
        assert not re.search(rf"\b({old}|{old + 1})\b", text), name
    assert "# A remark of mine.\nmax_upload_size: 7M\n" in config.read_text()
    assert running.weft("doctor").returncode == 0


def test_flags_that_contradict_the_data_folder_are_refused(running: Stack) -> None:
    running.stop()
    before = {path: path.read_bytes() for path in running.data.glob("*.yaml")}
    other_name = running.weft("up", "--server-name", "elsewhere.example")
    assert other_name.returncode == 1
    assert_one_sentence(other_name.stderr, "localhost", "elsewhere.example", "--data")
    authority = running.weft("up", "--ca", "/nowhere/at/all")
    assert authority.returncode == 1
    assert_one_sentence(authority.stderr, "--ca", "localhost:8448")
    assert {path: path.read_bytes() for path in running.data.glob("*.yaml")} == before


def test_a_program_that_cannot_start_ends_the_start_with_its_last_words(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert run_weft("init", "--port", str(free_port_pair()), data=data).returncode == 0
    config = data / "homeserver.yaml"
    config.write_text(config.read_text() + "\nmax_upload_size: much\n")
    failed = run_weft("up", data=data, seconds_max=90)
    assert failed.returncode == 1
    assert_one_sentence(failed.stderr, "Synapse keeps stopping", "synapse-output.log")
    assert run_weft("status", data=data).returncode == 3


def test_two_configs_that_disagree_about_the_port_are_one_sentence(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert run_weft("init", data=data).returncode == 0
    config = data / "homeserver.yaml"
    config.write_text(config.read_text().replace("port: 8008", "port: 8888"))
    failed = run_weft("up", data=data)
    assert failed.returncode == 1
    assert_one_sentence(failed.stderr, "8008", str(config), "homeserver.url")


def test_a_broken_config_ends_the_start_with_file_and_key(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert run_weft("init", data=data).returncode == 0
    config = data / "weft.yaml"
    good = config.read_text()
    for bad, expected in (
        (good.replace("port: 8009", "port: eighty"), "web.port"),
        (good + "\nextra: 1\n", "extra: unknown key"),
        (good + "\nlog: [\n", "line"),
    ):
        config.write_text(bad)
        failed = run_weft("up", data=data)
        assert failed.returncode == 1
        assert_one_sentence(failed.stderr, str(config), expected)


def test_a_start_in_the_background_that_is_interrupted_leaves_nothing_running(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port_pair()
    terminal = Terminal(str(WEFT), "up", "--detach", "--data", str(data), "--port", str(port))
    try:
        terminal.read_until("Starting Synapse", seconds_max=90)
        terminal.press_ctrl_c()
        assert terminal.process.wait(60) != 0
    finally:
        terminal.close()
    assert run_weft("status", data=data).returncode == 3
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/")


def test_doctor_finds_everything_in_order_and_says_what_is_not(running: Stack) -> None:
    healthy = running.weft("doctor", "--json")
    findings = json.loads(healthy.stdout)
    assert healthy.returncode == 0
    assert len(findings) >= 9
    assert all(finding["ok"] for finding in findings)
    registration = running.data / "registrations" / "wallet.yaml"
    good = registration.read_text()
    try:
        registration.write_text(re.sub(r'as_token: "\w+"', f'as_token: "{"0" * 64}"', good))
        broken = running.weft("doctor", "--json")
    finally:
        registration.write_text(good)
    assert broken.returncode == 1
    failed = [finding for finding in json.loads(broken.stdout) if not finding["ok"]]
    assert [finding["name"] for finding in failed] == [f"Registration of {running.wallet_user}"]
    assert "doesn't know our as_token" in failed[0]["detail"]
    assert "app_service_config_files" in failed[0]["remedy"]


def test_doctor_says_when_synapse_does_not_reach_the_services(running: Stack) -> None:
    os.kill(running.pids()["services"], signal.SIGSTOP)
    try:
        findings = json.loads(running.weft("doctor", "--json").stdout)
    finally:
        os.kill(running.pids()["services"], signal.SIGCONT)
    failed = {finding["name"]: finding for finding in findings if not finding["ok"]}
    assert "can't reach us" in failed[f"Registration of {running.home_user}"]["detail"]


def assert_one_sentence(text: str, *expected: str) -> None:
    """One line that ends like a sentence, or like the file and key it is about, and says all of that."""
    assert len(text.strip().splitlines()) == 1, text
    for part in expected:
        assert part in text
