"""`weft up`: starts Synapse and every service of Weft, says when they are ready, and keeps them running."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Protocol, TextIO

import httpx
import typer
from rich.console import Console

from appservices.chassis.config import WeftConfig, load_config
from scripts.weft_cli.certificates import ensure_certificate
from scripts.weft_cli.data_folder import DataFolder, DataOption, find_data_folder
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.homeserver import listening_ports, read_homeserver_config
from scripts.weft_cli.init import (
    AuthorityOption,
    PortOption,
    ServerNameOption,
    Wishes,
    authority_of,
    initialise,
    new_config,
)
from scripts.weft_cli.own_homeserver import check_tokens_are_known
from scripts.weft_cli.port_change import change_port
from scripts.weft_cli.ports import check_ports, host_of, listeners, port_of
from scripts.weft_cli.running import Running, running_lock, write_running
from scripts.weft_cli.supervisor import Program, ProgramFailed, Supervisor
from scripts.weft_cli.written_files import make_folder, replace_file

SYNAPSE = "Synapse"
SERVICES = "Weft"
PYTHON = (sys.executable, "-P")
"""Modules come from the environment alone, never from the folder that a program is started in."""


class StartListener(Protocol):
    """Who is told how the start goes."""

    def say(self, text: str) -> None: ...

    def ready(self, lines: list[str]) -> None: ...


def up(
    data: DataOption = None,
    port: PortOption = None,
    server_name: ServerNameOption = None,
    ca: AuthorityOption = None,
    open_registration: Annotated[
        bool, typer.Option("--open-registration", help="Let anyone register, for this run.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when all is ready; `weft down` stops it.")
    ] = False,
    report_to: Annotated[int | None, typer.Option("--report-to", hidden=True)] = None,
) -> None:
    """Start Synapse and Weft, and keep them running until Ctrl-C. Makes a data folder when there is none."""
    folder = find_data_folder(data)
    wishes = Wishes(server_name=server_name, port=port, authority=ca)
    if report_to is None and not folder.config.exists():
        # Said before anything is written.
        check_ports(listeners(new_config(folder, wishes)))
    if detach:
        _start_in_background(folder, wishes, open_registration=open_registration)
    elif report_to is not None:
        with os.fdopen(report_to, "w", encoding="utf-8") as pipe:
            _run_reporting(folder, wishes, pipe, open_registration=open_registration)
    else:
        with _TerminalListener() as listener:
            run(folder, wishes, listener, open_registration=open_registration)


def run(folder: DataFolder, wishes: Wishes, listener: StartListener, *, open_registration: bool) -> None:
    """Everything that `weft up` does. Returns when it was asked to stop.

    Raises CommandFailed or ConfigInvalid with one sentence when it can't start or can't go on.
    """
    with running_lock(folder):
        if not folder.config.exists():
            listener.say(f"Making a new data folder, {folder.path}")
        config = prepare(folder, wishes)
        make_folder(folder.logs)
        check_ports(listeners(config))
        if not config.homeserver.managed:
            check_tokens_are_known(config)
        try:
            asyncio.run(_supervise(folder, config, listener, open_registration=open_registration))
        except ProgramFailed as failed:
            raise CommandFailed(str(failed)) from failed


def prepare(folder: DataFolder, wishes: Wishes) -> WeftConfig:
    """Makes the data folder complete and as the flags wish. Raises CommandFailed, ConfigInvalid."""
    initialise(folder, wishes)
    config = load_config(folder.path)
    if wishes.port is not None and wishes.port + 1 != config.web.port:
        change_port(folder, config, wishes.port)
        config = load_config(folder.path)
    if config.homeserver.managed:
        content = read_homeserver_config(folder.homeserver_config)
        if content.get("server_name") != config.server_name:
            raise CommandFailed(
                f"{folder.homeserver_config}: server_name is {content.get('server_name')}, but "
                f"{folder.config} says {config.server_name}: they must be the same."
            )
        port = port_of(config.homeserver.url)
        if port not in listening_ports(content):
            raise CommandFailed(
                f"{folder.homeserver_config} has no listener on port {port}, at which {folder.config} looks "
                "for Synapse (homeserver.url): make them agree."
            )
    authority = authority_of(folder)
    if authority is not None:
        ensure_certificate(
            authority,
            host=host_of(config.server_name),
            certificate=folder.certificate,
            key=folder.certificate_key,
            now=datetime.datetime.now(datetime.UTC),
        )
    return config


def ready_lines(folder: DataFolder, config: WeftConfig) -> list[str]:
    """What someone needs to know once it runs."""
    own = "" if folder == find_data_folder(None) else f" --data {folder.path}"
    weft = Path(sys.argv[0]).name if Path(sys.argv[0]).name == "weft" else "weft"
    venv = Path(sys.prefix) / "bin" / weft
    command = os.path.relpath(venv) if venv.exists() else weft
    return [
        f"Homeserver for a Matrix client   {config.homeserver.public_url}",
        f"Portal                           {config.web.public_url}",
        f"Make the first user              {command} user add alice --admin{own}",
        f"See what runs                    {command} status{own}",
        f"Stop                             {command} down{own}",
    ]


def programs(folder: DataFolder, config: WeftConfig, *, open_registration: bool) -> list[Program]:
    """What `weft up` keeps running."""
    services = Program(
        name=SERVICES,
        command=[*PYTHON, "-m", "scripts.weft_cli.main", "serve", "--data", str(folder.path)],
        folder=folder.path,
        log=folder.logs / "weft.log",
        ready_url=health_url(config),
        is_ready=all_services_ready,
        environment={"PYTHONUNBUFFERED": "1"},
    )
    if not config.homeserver.managed:
        return [services]
    configs = [folder.homeserver_config]
    if open_registration:
        # A second config wins over the first; the operator's own file stays as it is.
        extra = folder.run / "open-registration.yaml"
        replace_file(extra, "enable_registration: true\nenable_registration_without_verification: true\n")
        configs.append(extra)
    synapse = Program(
        name=SYNAPSE,
        command=[
            *PYTHON,
            "-m",
            "synapse.app.homeserver",
            *(argument for path in configs for argument in ("-c", str(path))),
        ],
        folder=folder.path,
        log=folder.logs / "synapse-output.log",
        ready_url=f"{config.homeserver.url.rstrip('/')}/_matrix/client/versions",
        is_ready=lambda response: response.status_code == 200,
        environment={"PYTHONUNBUFFERED": "1"},
    )
    return [synapse, services]


def health_url(config: WeftConfig) -> str:
    """Where Weft's services say how they are, from this machine."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.web.bind_address, config.web.bind_address)
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{config.web.port}/_weft/health"


def all_services_ready(response: httpx.Response) -> bool:
    """Whether the health answer says that every service is ready."""
    if response.status_code != 200:
        return False
    health: dict[str, Any] = response.json()
    return bool(health["ok"]) and all(state == "ready" for state in health["services"].values())


async def _supervise(
    folder: DataFolder, config: WeftConfig, listener: StartListener, *, open_registration: bool
) -> None:
    supervisor = Supervisor(programs(folder, config, open_registration=open_registration), say=listener.say)
    state = "starting"

    def changed() -> None:
        pids = supervisor.pids()
        write_running(
            folder,
            Running(
                pid=os.getpid(),
                state=state,
                homeserver_url=config.homeserver.public_url,
                portal_url=config.web.public_url,
                synapse=pids.get(SYNAPSE),
                services=pids.get(SERVICES),
                restarts=supervisor.restarts(),
            ),
        )

    def ready() -> None:
        nonlocal state
        state = "running"
        changed()
        listener.ready(ready_lines(folder, config))

    def stop() -> None:
        nonlocal state
        if state != "stopping":
            state = "stopping"
            listener.say("Stopping ...")
            changed()
        supervisor.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    names = " and ".join(supervisor.pids())
    *ports, last = [str(own.port) for own in listeners(config)]
    shown = f"ports {', '.join(ports)} and {last}" if ports else f"port {last}"
    listener.say(f"Starting {names} on {shown} ...")
    await supervisor.run(changed=changed, ready=ready)
    listener.say("Stopped.")


class _TerminalListener:
    """Shows the start on the terminal: a spinner where there is one, lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._status = self._console.status("Starting ...")

    def __enter__(self) -> _TerminalListener:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def ready(self, lines: list[str]) -> None:
        self._status.stop()
        for line in ["", *lines, "", "Ctrl-C stops it."]:
            self._console.print(line, markup=False)

    def detached(self, lines: list[str]) -> None:
        self._status.stop()
        for line in ["", *lines]:
            self._console.print(line, markup=False)


class _PipeListener:
    """Tells the command that waits at the other end, and the log once that one has gone."""

    def __init__(self, pipe: TextIO) -> None:
        self._pipe: TextIO | None = pipe

    def say(self, text: str) -> None:
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        print(now, text, flush=True)
        self._tell({"say": text})

    def ready(self, lines: list[str]) -> None:
        self._tell({"ready": lines})
        self._close()

    def failed(self, sentence: str) -> None:
        self._tell({"failed": sentence})
        self._close()

    def _tell(self, message: dict[str, Any]) -> None:
        if self._pipe is not None:
            try:
                self._pipe.write(json.dumps(message) + "\n")
                self._pipe.flush()
            except BrokenPipeError:
                self._close()

    def _close(self) -> None:
        if self._pipe is not None:
            with suppress(OSError):
                self._pipe.close()
            self._pipe = None


def _run_reporting(folder: DataFolder, wishes: Wishes, pipe: TextIO, *, open_registration: bool) -> None:
    listener = _PipeListener(pipe)
    try:
        run(folder, wishes, listener, open_registration=open_registration)
    except Exception as error:
        listener.failed(str(error) or type(error).__name__)
        raise


def _start_in_background(folder: DataFolder, wishes: Wishes, *, open_registration: bool) -> None:
    """Starts the same command in a session of its own and returns when that one is ready."""
    make_folder(folder.path)
    make_folder(folder.logs)
    reading, writing = os.pipe()
    command = [*PYTHON, "-m", "scripts.weft_cli.main", "up", "--data", str(folder.path)]
    if wishes.port is not None:
        command += ["--port", str(wishes.port)]
    if wishes.server_name is not None:
        command += ["--server-name", wishes.server_name]
    if wishes.authority is not None:
        command += ["--ca", str(wishes.authority.expanduser().resolve())]
    if open_registration:
        command.append("--open-registration")
    with (folder.logs / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--report-to", str(writing)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[writing],
            start_new_session=True,
        )
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe, _TerminalListener() as listener:
        try:
            _follow(pipe, listener)
        except KeyboardInterrupt:
            listener.say("Stopping ...")
            process.terminate()
            process.wait()
            raise


def _follow(pipe: TextIO, listener: _TerminalListener) -> None:
    for line in pipe:
        message = json.loads(line)
        if "failed" in message:
            raise CommandFailed(message["failed"])
        if "ready" in message:
            listener.detached(message["ready"])
            return
        listener.say(message["say"])
    raise CommandFailed("Weft ended before it was ready: see logs/up.log in its data folder.")
