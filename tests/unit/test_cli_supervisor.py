"""The supervisor with small real programs: restarts, giving up, stopping in order, dying together."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from scripts.weft_cli import supervisor as supervision
from scripts.weft_cli.supervisor import Program, ProgramFailed, Supervisor
from tests.stack import is_alive, wait_until
from tests.synapse import free_port

SERVER = """
import http.server, os, pathlib, signal, sys
pathlib.Path("{name}.starts").open("a").write(f"{{os.getpid()}}\\n")
{first}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
def stop(*_):
    pathlib.Path("stopped").open("a").write("{name}\\n"); sys.exit(0)
signal.signal(signal.SIGTERM, {on_term})
print("{name} listens", flush=True)
http.server.HTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""


def program(folder: Path, name: str, *, first: str = "", on_term: str = "stop") -> Program:
    port = free_port()
    code = SERVER.format(name=name, port=port, first=first, on_term=on_term)
    return Program(
        name=name,
        command=[sys.executable, "-c", textwrap.dedent(code)],
        folder=folder,
        log=folder / f"{name}.log",
        ready_url=f"http://127.0.0.1:{port}/",
        is_ready=lambda response: response.status_code == 200,
    )


def starts(folder: Path, name: str) -> list[int]:
    path = folder / f"{name}.starts"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


async def eventually(look: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, look)


class Run:
    """A supervisor at work in this loop, and what it said."""

    def __init__(self, *programs: Program) -> None:
        self.said: list[str] = []
        self.ready = asyncio.Event()
        self.supervisor = Supervisor(programs, say=self.said.append)
        self.task = asyncio.create_task(self.supervisor.run(changed=lambda: None, ready=self.ready.set))

    async def until_ready(self) -> None:
        await asyncio.wait_for(self.ready.wait(), 60)

    async def stop(self) -> None:
        self.supervisor.stop()
        await asyncio.wait_for(self.task, 60)


async def test_all_start_and_the_last_started_stops_first(tmp_path: Path) -> None:
    run = Run(program(tmp_path, "one"), program(tmp_path, "two"))
    await run.until_ready()
    pids = run.supervisor.pids()
    await run.stop()
    assert (tmp_path / "stopped").read_text().split() == ["two", "one"]
    assert not any(is_alive(pid) for pid in pids.values() if pid)
    assert "one listens" in (tmp_path / "one.log").read_text()


async def test_a_program_that_dies_is_started_again_and_its_last_words_are_told(tmp_path: Path) -> None:
    run = Run(program(tmp_path, "one"))
    await run.until_ready()
    os.kill(starts(tmp_path, "one")[0], signal.SIGKILL)
    await eventually(lambda: len(starts(tmp_path, "one")) == 2)
    assert run.supervisor.restarts() == {"one": 1}
    assert "killed by SIGKILL" in " ".join(run.said)
    assert "“one listens”" in " ".join(run.said)
    await run.stop()


async def test_a_program_that_never_starts_ends_the_others_with_one_sentence(tmp_path: Path) -> None:
    broken = program(tmp_path, "broken", first="sys.exit('I lack a key')")
    run = Run(program(tmp_path, "one"), broken)
    with pytest.raises(ProgramFailed) as failed:
        await asyncio.wait_for(run.task, 60)
    assert "broken keeps stopping (exit status 1): “I lack a key”" in str(failed.value)
    assert str(tmp_path / "broken.log") in str(failed.value)
    assert not any(is_alive(pid) for pid in starts(tmp_path, "one"))
    assert len(starts(tmp_path, "broken")) == 1 + supervision.FIRST_RETRIES_MAX


async def test_a_program_that_keeps_dying_is_given_up_after_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "RETRY_PAUSE_SECONDS", (0.1, 0.2, 0.4))
    first = 'if pathlib.Path("one.starts").read_text().count("\\n") > 1: sys.exit("broken since")'
    run = Run(program(tmp_path, "one", first=first))
    await run.until_ready()
    started = time.monotonic()
    os.kill(starts(tmp_path, "one")[0], signal.SIGKILL)
    with pytest.raises(ProgramFailed, match="broken since"):
        await asyncio.wait_for(run.task, 60)
    assert time.monotonic() - started > 0.7
    assert len(starts(tmp_path, "one")) == 5


async def test_a_program_that_ignores_the_request_to_stop_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "STOP_SECONDS_MAX", 0.5)
    run = Run(program(tmp_path, "deaf", on_term="signal.SIG_IGN"))
    await run.until_ready()
    await run.stop()
    assert not is_alive(starts(tmp_path, "deaf")[0])


async def test_who_asks_twice_waits_for_nobody(tmp_path: Path) -> None:
    run = Run(program(tmp_path, "deaf", on_term="signal.SIG_IGN"))
    await run.until_ready()
    started = time.monotonic()
    run.supervisor.stop()
    await asyncio.sleep(0.2)
    await run.stop()
    assert time.monotonic() - started < supervision.STOP_SECONDS_MAX / 2


async def test_a_stop_while_starting_ends_everything(tmp_path: Path) -> None:
    run = Run(program(tmp_path, "slow", first="import time; time.sleep(60)"))
    await eventually(lambda: bool(starts(tmp_path, "slow")))
    await run.stop()
    assert not is_alive(starts(tmp_path, "slow")[0])


def test_programs_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    code = f"""
    import asyncio, pathlib
    from tests.unit.test_cli_supervisor import Run, program
    async def main():
        run = Run(program(pathlib.Path({str(tmp_path)!r}), "one"))
        await run.until_ready()
        print("ready", flush=True)
        await asyncio.sleep(60)
    asyncio.run(main())
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    pid = starts(tmp_path, "one")[0]
    assert is_alive(pid)
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: not is_alive(pid))


def test_services_are_ready_when_each_of_them_says_so() -> None:
    from scripts.weft_cli.up import all_services_ready

    def answer(status: int, **states: str) -> httpx.Response:
        return httpx.Response(status, json={"ok": status == 200, "services": states})

    assert all_services_ready(answer(200, home="ready", wallet="ready"))
    assert not all_services_ready(answer(200, home="ready", wallet="starting"))
    assert not all_services_ready(answer(503, home="ready", wallet="ready"))


async def test_who_waits_is_told_what_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "WAITING_SECONDS", 0.2)
    never = replace(
        program(tmp_path, "one", first="print('12:00:00 WARNING weft: no token', flush=True)"),
        is_ready=lambda _: False,
    )
    run = Run(never)
    await eventually(lambda: "no token" in " ".join(run.said))
    assert f"(in {tmp_path / 'one.log'})" in run.said[-1]
    assert run.said[-1].startswith("Waiting for one (")
    await run.stop()
