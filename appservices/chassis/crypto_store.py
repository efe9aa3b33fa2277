"""Where a bot keeps its device: one folder per service user, opened by one process at a time.

The folder (0700) has the SQLite store of matrix-nio, the key file that its secrets are encrypted with, and
what cross_signing.py puts there. The device id is in the store itself, so a lost store means a new device and
never a known device with other keys. A store that can't be opened with its key file is refused, not replaced.

Copies are dangerous: ratchets only turn forward, so a restored older copy would use keys twice. See
docs/operators/encryption.md.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import sqlite3
import string
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from nio.store import SqliteStore

from appservices.vocabulary.ids import UserId

DATABASE_NAME: Final = "crypto.db"
PICKLE_KEY_NAME: Final = "pickle.key"
LOCK_NAME: Final = "lock"
DEVICE_ID_PREFIX: Final = "WEFT"
MESSAGE_INDEXES_MAX: Final = 1_000_000
"""How many decrypted messages are remembered against replays, over all rooms; the oldest go first."""
SET_ASIDE_MAX: Final = 3
"""How many stores that the homeserver no longer fits are kept beside the new one."""


class CryptoStoreUnusable(Exception):
    """The folder can't be used as it is; the message is one sentence that says what to do."""


class CryptoStore:
    """The opened folder. `nio` is the store that nio's olm machine works on."""

    def __init__(self, folder: Path, user_id: UserId) -> None:
        """Opens or makes the store. Raises CryptoStoreUnusable."""
        self.folder = folder
        self.user_id = user_id
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
            self._lock = _locked(folder)
        except OSError as error:
            raise CryptoStoreUnusable(f"{folder} can't be used: {error.strerror}") from error
        try:
            self._open()
        except BaseException:
            self._lock.close()
            raise

    def _open(self) -> None:
        path = self.folder / DATABASE_NAME
        known_device_id = _device_id_in(path, self.user_id)
        pickle_key = self._pickle_key(may_be_made=known_device_id is None)
        self.is_new = known_device_id is None
        self.device_id = known_device_id or _new_device_id()
        try:
            self.nio: Any = _NioStore(
                self.user_id,
                self.device_id,
                str(self.folder),
                pickle_key=pickle_key,
                database_name=DATABASE_NAME,
            )
            self.nio.load_account()
        except ValueError as error:
            raise CryptoStoreUnusable(
                f"{path} can't be opened with {PICKLE_KEY_NAME} beside it: put back the two that belong "
                f"together, or remove {self.folder} to give {self.user_id} a new device"
            ) from error
        except Exception as error:
            raise CryptoStoreUnusable(
                f"{path} is not a store that can be read ({error}): "
                f"remove {self.folder} to give {self.user_id} a new device"
            ) from error
        self.nio.forget_old_message_indexes()

    def set_aside(self) -> None:
        """Starts again with an empty store and a new device id; the old store is kept under another name.

        For a store whose device the homeserver knows with other keys: it can never be used again.
        """
        self.nio.database.close()
        path = self.folder / DATABASE_NAME
        _rename_with_journal(path, path.with_name(f"{DATABASE_NAME}.set-aside-{time.time_ns()}"))
        earlier = sorted(self.folder.glob(f"{DATABASE_NAME}.set-aside-*"))
        for old in earlier[:-SET_ASIDE_MAX]:
            old.unlink()
        self._open()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written inside is on the disk together, or not at all. No await inside."""
        with self.nio.database.atomic():
            yield

    def sync_token(self) -> str | None:
        token: str | None = self.nio.load_sync_token()
        return token or None

    def forget_sync_token(self) -> None:
        self.nio.save_sync_token("")

    def close(self) -> None:
        self.nio.database.close()
        self._lock.close()

    def _pickle_key(self, *, may_be_made: bool) -> str:
        path = self.folder / PICKLE_KEY_NAME
        try:
            return path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            if not may_be_made:
                raise CryptoStoreUnusable(
                    f"{path} is missing, without which {DATABASE_NAME} beside it can't be read: put it back, "
                    f"or remove {self.folder} to give {self.user_id} a new device"
                ) from None
        except (OSError, ValueError) as error:
            raise CryptoStoreUnusable(f"{path} can't be read: {error}") from error
        key = secrets.token_hex(32)
        write_secret(path, key + "\n")
        return key


def write_secret(path: Path, text: str) -> None:
    """Writes a file that only its owner can read; it is there whole or not at all, also after a crash."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class _NioStore(SqliteStore):  # type: ignore[misc]
    """nio's store with a write-ahead log, and with a memory for replays that outlives a restart."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.database.execute_sql(
            "CREATE TABLE IF NOT EXISTS weft_message_indexes ("
            " number INTEGER PRIMARY KEY AUTOINCREMENT,"
            " session_id TEXT NOT NULL, message_index INTEGER NOT NULL, event_id TEXT NOT NULL,"
            " UNIQUE (session_id, message_index))"
        )

    def _create_database(self) -> Any:
        database = super()._create_database()
        database.init(
            self.database_path,
            pragmas={
                "foreign_keys": 1,
                "secure_delete": 1,
                "journal_mode": "wal",
                # A ratchet that was used must not turn back after a power cut.
                "synchronous": "full",
                "busy_timeout": 5000,
            },
        )
        return database

    def event_of_message_index(self, session_id: str, message_index: int) -> str | None:
        """The event that first used this index of a session; None when none did."""
        row = self.database.execute_sql(
            "SELECT event_id FROM weft_message_indexes WHERE session_id = ? AND message_index = ?",
            (session_id, message_index),
        ).fetchone()
        return None if row is None else str(row[0])

    def remember_message_index(self, session_id: str, message_index: int, event_id: str) -> None:
        self.database.execute_sql(
            "INSERT OR IGNORE INTO weft_message_indexes (session_id, message_index, event_id)"
            " VALUES (?, ?, ?)",
            (session_id, message_index, event_id),
        )

    def forget_old_message_indexes(self) -> None:
        self.database.execute_sql(
            "DELETE FROM weft_message_indexes"
            " WHERE number <= (SELECT max(number) FROM weft_message_indexes) - ?",
            (MESSAGE_INDEXES_MAX,),
        )


def _device_id_in(path: Path, user_id: UserId) -> str | None:
    """The device of this user in a store; None when there is no store, or none of this user."""
    if not path.exists():
        return None
    try:
        connection = sqlite3.connect(path)
        try:
            row = connection.execute(
                "SELECT device_id FROM accounts WHERE user_id = ? ORDER BY id DESC LIMIT 1", (user_id,)
            ).fetchone()
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise CryptoStoreUnusable(f"{path} can't be read: {error}") from error
    except sqlite3.DatabaseError as error:
        raise CryptoStoreUnusable(
            f"{path} is damaged ({error}): remove {path.parent} to give {user_id} a new device"
        ) from error
    return None if row is None else str(row[0])


def _new_device_id() -> str:
    letters = string.ascii_uppercase + string.digits
    return DEVICE_ID_PREFIX + "".join(secrets.choice(letters) for _ in range(10))


def _locked(folder: Path) -> IO[str]:
    """Keeps other processes out for as long as the file is open, and no longer, however we end."""
    lock = (folder / LOCK_NAME).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise CryptoStoreUnusable(
            f"{folder} is in use by another process: end the other `weft serve` first"
        ) from error
    return lock


def _rename_with_journal(path: Path, target: Path) -> None:
    # The store was closed in good order, so its write-ahead log is merged; what is left of it is empty.
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    shutil.move(path, target)
