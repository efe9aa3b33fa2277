"""`weft wallet verify` at the terminal: a progress bar while the ledger is recomputed, then the verdict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from appservices.chassis.config import WeftConfig, load_signing_key
from appservices.chassis.database import Database
from appservices.chassis.migrations import is_current
from appservices.vocabulary.money import Currency, CurrencyCode, format_minor
from appservices.vocabulary.signing import decode_base64
from scripts.weft_cli.composition import (
    WALLET_BRANCHES,
    database_failures_named,
    open_configured_database,
    unusable_database,
)
from scripts.weft_cli.database_files import is_missing
from scripts.weft_cli.failure import CommandFailed
from wallet_appservice.storage.checkpoint_check import CheckpointSigner
from wallet_appservice.storage.ledger_check import verify
from wallet_appservice.storage.ledger_checkpoints import Checkpoint, CheckpointInvalid, read_checkpoint

PUBLIC_KEY_BYTES = 32
CHECKPOINT_FILE_BYTES_MAX = 64 * 1024 * 1024


async def verify_ledger(
    config: WeftConfig, checkpoint_files: Sequence[Path] = (), *, earlier_keys: Sequence[str] = ()
) -> None:
    """Prints what was checked. Raises CommandFailed with the first difference, or when there is no ledger."""
    signer = checkpoint_signer(config, earlier_keys)
    given = [found for path in checkpoint_files for found in _read_checkpoints(path, signer)]
    async with open_existing_ledger(config) as database:
        with progress_bar("Recomputing the ledger") as on_progress:
            check = await verify(database, on_progress, signer=signer, checkpoints=given)
    if check.difference is not None:
        raise CommandFailed(
            f"The ledger is not right: {check.difference.sentence} "
            f"({check.difference.table}, row {check.difference.row})."
        )
    print(
        f"The ledger is right: {check.transfers_count} transfers, {check.accounts_count} accounts, "
        f"{check.checkpoints_count} checkpoints."
    )
    print(f"Chain: batch {check.batches_count}, {check.link}")
    for code, circulating in sorted(check.in_circulation_minor.items()):
        print(f"In circulation: {_amount(config, code, circulating)}")


@asynccontextmanager
async def open_existing_ledger(config: WeftConfig) -> AsyncIterator[Database]:
    """The wallet's database for those who make none. Raises CommandFailed when there is no ledger."""
    database = open_configured_database(config, key="wallet.database", url=config.wallet.database)
    key = "wallet.database"
    try:
        with database_failures_named(config, key=key, database=database):
            try:
                current = not is_missing(database) and await is_current(database, *WALLET_BRANCHES)
            except OSError as error:
                raise unusable_database(config, key=key, database=database, error=error) from error
            if not current:
                raise CommandFailed(
                    "There is no ledger of this version yet: the first start or deposit makes it."
                )
            yield database
    finally:
        await database.close()


@contextmanager
def progress_bar(description: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal's error stream, moved by calling with what is done and what there is in all."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def checkpoint_signer(config: WeftConfig, earlier_keys: Sequence[str] = ()) -> CheckpointSigner:
    """This wallet and its public keys, the earlier ones as `ed25519:k0=BASE64`.

    Raises ConfigInvalid and CommandFailed.
    """
    earlier = {}
    for text in earlier_keys:
        id, equals, public = text.partition("=")
        if not (id.startswith("ed25519:") and equals and _is_public_key(public)):
            raise CommandFailed(f"--key takes a public key such as ed25519:k0=BASE64, not “{text}”.")
        earlier[id] = public
    name = config.wallet.signing_key_file
    key = load_signing_key(config, key="wallet.signing_key_file", name=name)
    return CheckpointSigner(config.wallet_user, {**earlier, key.key_id: key.public_base64})


def _is_public_key(text: str) -> bool:
    try:
        return len(decode_base64(text)) == PUBLIC_KEY_BYTES
    except ValueError:
        return False


def _read_checkpoints(path: Path, signer: CheckpointSigner) -> list[Checkpoint]:
    """All checkpoints of a file, one a line."""
    with path.open("rb") as file:
        content = file.read(CHECKPOINT_FILE_BYTES_MAX)
    try:
        lines = [line for line in content.decode().split("\n") if line.strip()]
        if not lines:
            raise CheckpointInvalid("it is empty")
        return [read_checkpoint(line.strip(), wallet=signer.wallet, keys=signer.keys) for line in lines]
    except UnicodeDecodeError as error:
        raise CommandFailed(f"{path} is not text.") from error
    except CheckpointInvalid as error:
        raise CommandFailed(f"{path} can't be checked against: {error}.") from error


def _amount(config: WeftConfig, code: str, amount_minor: int) -> str:
    currency: Currency | None = config.wallet.kept_currencies.get(CurrencyCode(code))
    if currency is None:
        return f"{amount_minor} minor units of {code}, which is no longer configured"
    return format_minor(amount_minor, currency)
