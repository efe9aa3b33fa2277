"""`weft wallet pin reset` and `weft wallet audit`: help for who is locked out, and who did what."""

from __future__ import annotations

import asyncio
import getpass
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from appservices.chassis.config import load_config
from appservices.vocabulary.ids import UserId
from scripts.weft_cli.data_folder import DataOption, find_data_folder
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.user import local_user

if TYPE_CHECKING:
    from appservices.chassis.config import WeftConfig
    from wallet_appservice.payments.audit import AuditEntry, AuditFinding

ENTRIES_DEFAULT = 50

pin_commands = typer.Typer(help="PINs of people who are locked out.", no_args_is_help=True)


def operator_name() -> str:
    """Who gives commands here, for the audit log: the login name on this machine."""
    try:
        return f"{getpass.getuser()} (command line)"
    except (KeyError, OSError):
        return "command line"


@pin_commands.command()
def reset(
    user: Annotated[str, typer.Argument(metavar="USER", help="alice, or @alice:server.")],
    passkeys: Annotated[bool, typer.Option("--passkeys", help="Remove all of their passkeys, too.")] = False,
    data: DataOption = None,
) -> None:
    """Remove a user's PIN and its lock, so that they can set a new one. They are told."""
    config = load_config(find_data_folder(data).path)
    user_id = UserId(local_user(user, config))
    had_pin, passkeys_count = asyncio.run(_reset(config, user_id, passkeys=passkeys))
    if not had_pin and not passkeys_count:
        raise CommandFailed(f"{user_id} has no PIN{' and no passkeys' if passkeys else ''}.")
    removed = [*(["PIN"] if had_pin else []), *([f"{passkeys_count} passkeys"] if passkeys_count else [])]
    print(f"Removed of {user_id}: {', '.join(removed)}.")


def audit(
    data: DataOption = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the hash chain over the log.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with JSON.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=200, help="How many of the newest entries.")
    ] = ENTRIES_DEFAULT,
    before: Annotated[
        int | None, typer.Option("--before", help="Only entries before this one.", show_default=False)
    ] = None,
) -> None:
    """Show who did what. With --verify, exit status 1 when the log was changed."""
    config = load_config(find_data_folder(data).path)
    entries, finding = asyncio.run(_read(config, limit=limit, before=before, verify=verify))
    if finding is not None:
        _report(finding, as_json=as_json)
    elif as_json:
        print(json.dumps([_as_json(entry) for entry in entries]))
    else:
        _show(entries)


def _report(finding: AuditFinding, *, as_json: bool) -> None:
    if as_json:
        print(
            json.dumps(
                {
                    "links": finding.links,
                    "last_hash": finding.last_hash,
                    "not_linked": finding.not_linked,
                    "problem": finding.problem,
                }
            )
        )
    if finding.problem:
        raise CommandFailed(finding.problem)
    if not as_json:
        waiting = f" ({finding.not_linked} entries are not linked yet)" if finding.not_linked else ""
        print(f"The audit log holds: {finding.links} entries{waiting}.")
        print(f"Last hash {finding.last_hash}; keep it elsewhere, and a later log must contain it.")


def _show(entries: list[AuditEntry]) -> None:
    if not entries:
        print("Nothing is in the audit log yet.")
        return
    table = Table("No.", "When (UTC)", "Who", "What", "Whose", "Details", box=None, pad_edge=False)
    for entry in entries:
        when = datetime.fromtimestamp(entry.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        details = ", ".join(f"{name} {value}" for name, value in entry.details.items() if value != "")
        table.add_row(str(entry.position), when, entry.actor, entry.action, entry.subject, details)
    Console(highlight=False, markup=False).print(table)


def _as_json(entry: AuditEntry) -> dict[str, object]:
    return {
        "position": entry.position,
        "at_ms": entry.at_ms,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "details": dict(entry.details),
        "number": entry.number,
        "hash": entry.hash,
    }


async def _reset(config: WeftConfig, user: UserId, *, passkeys: bool) -> tuple[bool, int]:
    from scripts.weft_cli.composition import build_protection, open_wallet
    from wallet_appservice.payments.audit import AuditAction

    async with open_wallet(config) as payments:
        protection = build_protection(config, payments.till.database, payments, on_commit=lambda: None)
        actor = operator_name()
        had_pin = await protection.proofs.pins.remove(
            user, by="your operator", actor=actor, action=AuditAction.PIN_RESET
        )
        count = 0
        if passkeys:
            count = await protection.proofs.passkeys.remove_all(user, by="your operator", actor=actor)
        return had_pin, count


async def _read(
    config: WeftConfig, *, limit: int, before: int | None, verify: bool
) -> tuple[list[AuditEntry], AuditFinding | None]:
    from scripts.weft_cli.composition import open_wallet
    from wallet_appservice.payments.audit import AuditLog

    async with open_wallet(config) as payments:
        log = AuditLog(payments.till.database)
        if verify:
            return [], await log.verify()
        return await log.entries(limit=limit, before=before), None
