"""A real PostgreSQL server for tests, in a folder of its own, durable as in production (fsync on).

The server program is the machine's: on Debian, `apt-get install postgresql`. It refuses to run as root, so
under root it runs as the package's user, or as nobody. Nothing listens on the network: tests reach it by a
socket in its folder.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from appservices.chassis.database import async_url

START_SECONDS_MAX: Final = 60
PACKAGED_PROGRAMS: Final = Path("/usr/lib/postgresql")
SUPERUSER: Final = "weft"
PORT: Final = 5432
"""Part of the socket's name only."""

_numbers = count(1)


class PostgresqlMissing(Exception):
    """This machine has no PostgreSQL server; the message says what to install."""


class Postgresql:
    """One server process on a data folder. It can be killed and started again."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are those that differ from PostgreSQL's defaults."""
        self.folder = folder
        self._settings = [f"--{name}={value}" for name, value in (settings or {}).items()]
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        shutil.chown(self.folder, *_server_user())
        self.folder.chmod(0o700 if os.geteuid() else 0o711)
        subprocess.run(
            [
                *_as_server_user(),
                str(program("initdb")),
                f"--pgdata={self._data}",
                f"--username={SUPERUSER}",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ],
            check=True,
            capture_output=True,
            cwd=self.folder,
        )

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        log = (self.folder / "server.log").open("ab")
        self._process = subprocess.Popen(
            [
                *_as_server_user(),
                str(program("postgres")),
                *("-D", str(self._data), "-p", str(PORT), "-k", str(self.folder)),
                *("-c", "listen_addresses=", "-c", "fsync=on", "-c", "max_connections=60"),
                *self._settings,
            ],
            stdout=log,
            stderr=log,
            cwd=self.folder,
            start_new_session=True,
        )
        log.close()
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'server.log').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends the server in order, closing every connection first."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """Ends every server process at once and without warning; `start` then recovers from the log."""
        self._end(signal.SIGQUIT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """No server process does anything meanwhile, and none of their connections breaks."""
        processes = self._processes()
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)

    def _processes(self) -> list[int]:
        """The postmaster and its children."""
        assert self._process is not None
        postmaster = self._process.pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
        return [postmaster, *map(int, children.split())]

    def create_database(self) -> str:
        """Makes an empty database and returns its URL."""
        name = f"test_{next(_numbers)}"
        asyncio.run(self._execute(f"CREATE DATABASE {name}"))
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Removes a database that was made here, whoever is still connected to it."""
        asyncio.run(self._execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)"))

    def _url(self, name: str) -> str:
        return f"postgresql://{SUPERUSER}@/{name}?host={self.folder}&port={PORT}"

    def _answers(self) -> bool:
        try:
            asyncio.run(self._execute("SELECT 1"))
        except (OSError, DBAPIError):
            return False
        return True

    async def _execute(self, statement: str) -> None:
        url = async_url(self._url("postgres"), folder=self.folder)
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        try:
            async with engine.connect() as connection:
                await connection.execute(text(statement))
        finally:
            await engine.dispose()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(START_SECONDS_MAX)


@contextmanager
def running_postgresql(settings: Mapping[str, str] | None = None) -> Iterator[Postgresql]:
    """A fresh server, gone with its folder at the end. Raises PostgresqlMissing."""
    program("initdb")
    folder = Path(tempfile.mkdtemp(prefix="weft-postgresql-"))
    server = Postgresql(folder, settings)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.crash()
        shutil.rmtree(folder)


def program(name: str) -> Path:
    """One of PostgreSQL's programs. Raises PostgresqlMissing."""
    found = shutil.which(name)
    if found is not None:
        return Path(found).resolve()
    versions = sorted(PACKAGED_PROGRAMS.glob(f"[0-9]*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if not versions:
        raise PostgresqlMissing("these tests need a PostgreSQL server: apt-get install postgresql")
    return versions[-1]


def _server_user() -> tuple[int, int]:
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return user.pw_uid, user.pw_gid
    raise PostgresqlMissing("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


def _as_server_user() -> tuple[str, ...]:
    """Runs the server as the right user, and ends it with the thread that started it, however that ends."""
    if os.geteuid() != 0:
        return ("setpriv", "--pdeathsig=QUIT")
    user, group = _server_user()
    return ("setpriv", "--pdeathsig=QUIT", f"--reuid={user}", f"--regid={group}", "--clear-groups")
