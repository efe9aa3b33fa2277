"""`weft wallet` on a ledger, run as an operator runs it: verify, checkpoint, books."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from appservices.chassis.config import load_config
from appservices.chassis.database import Database, open_database
from appservices.chassis.migrations import migrate
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.money import CurrencyCode
from appservices.vocabulary.signing import SigningKey
from scripts.weft_cli.composition import WALLET_BRANCHES
from tests.ledger_samples import deposit, open_ledger, payment
from tests.stack import run_weft
from wallet_appservice.ledger.submissions import Submission
from wallet_appservice.payments.accounts import issuance_account, user_account

EUR = CurrencyCode("EUR")
ALICE = user_account(UserId("@alice:localhost"), EUR)
BOB = user_account(UserId("@bob:localhost"), EUR)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a small ledger."""
    folder = tmp_path_factory.mktemp("ledger") / "data"
    assert run_weft("init", data=folder).returncode == 0
    asyncio.run(_fill(folder))
    return folder


async def _fill(folder: Path) -> None:
    database = _open(folder)
    await migrate(database, *WALLET_BRANCHES)
    async with open_ledger(database) as ledger:
        transfers = (deposit("salary", ALICE, 10_000), payment("tea", ALICE, BOB, 250))
        accounts = (issuance_account(EUR), ALICE, BOB)
        results = await ledger.submit(Submission(accounts=accounts, transfers=transfers))
        assert [result.refusal for result in results] == [None, None]
    await database.close()


def _open(folder: Path) -> Database:
    return open_database(load_config(folder).wallet.database, folder=folder)


def weft(data: Path, *arguments: str) -> str:
    done = run_weft("wallet", *arguments, data=data)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(data: Path, *arguments: str) -> str:
    done = run_weft("wallet", *arguments, data=data)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def test_a_kept_checkpoint_proves_the_ledger_and_finds_what_was_rewritten(data: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    assert weft(data, "checkpoint", "--output", str(kept)) == ""
    assert json.loads(kept.read_text())["position"] == 2
    said = weft(data, "verify", "--checkpoint", str(kept))
    assert "The ledger is right: 2 transfers, 3 accounts, 2 checkpoints." in said
    assert weft(data, "checkpoint", "--stored") == kept.read_text()

    async def change(statement: str) -> None:
        database = _open(data)
        async with database.begin() as work:
            await work.execute(text(statement))
            await work.commit()
        await database.close()

    asyncio.run(change("UPDATE ledger_transfers SET reference = 'changed' WHERE position = 2"))
    assert "transfer 2 " in (said := refused(data, "verify")) and "(ledger_transfers, row 2)" in said
    asyncio.run(change("UPDATE ledger_transfers SET reference = '' WHERE position = 2"))
    asyncio.run(change("DELETE FROM ledger_checkpoints"))
    assert "given checkpoint 1" in refused(data, "verify", "--checkpoint", str(kept))
    weft(data, "verify")
    kept.write_text(kept.read_text().replace('"10000"', '"10001"'))
    assert "does not fit" in refused(data, "verify", "--checkpoint", str(kept))
    kept.write_text("{}")
    assert "not a checkpoint" in refused(data, "verify", "--checkpoint", str(kept))
    assert "No such file" in refused(data, "verify", "--checkpoint", str(tmp_path / "nothing"))


def test_checkpoints_of_an_earlier_key_are_verified_with_its_public_half(data: Path) -> None:
    path = data / "keys" / "wallet.signing.key"
    first, before = SigningKey.from_text(path.read_text()), path.read_text()
    weft(data, "checkpoint")
    path.write_text(SigningKey.generate("k2").to_text())
    try:
        assert "unknown key" in refused(data, "verify")
        weft(data, "verify", "--key", f"{first.key_id}={first.public_base64}")
        assert "--key takes" in refused(data, "verify", "--key", "ed25519:k1=abc")
    finally:
        path.write_text(before)


def test_the_trial_balance_adds_up(data: Path) -> None:
    lines = json.loads(weft(data, "books", "trial-balance", "--json"))
    assert [(line["kind"], line["debits_minor"], line["credits_minor"]) for line in lines] == [
        ("issuance", "10000", "0"),
        ("user", "250", "10250"),
    ]
    total = [line for line in weft(data, "books", "trial-balance").splitlines() if "total" in line]
    assert total[0].split() == ["EUR", "total", "3", "102.50", "102.50", "100.00", "100.00"]
    assert "Liabilities:Users" in weft(data, "books", "chart")


def test_a_statement_is_for_people_or_programs(data: Path, tmp_path: Path) -> None:
    said = weft(data, "books", "statement", "alice")
    for words in ("Opening balance", "100.00", "-2.50", "@bob:localhost", "97.50", "2 transfers"):
        assert words in said
    assert weft(data, "books", "statement", ALICE.id) == said
    path = tmp_path / "statement.csv"
    weft(data, "books", "statement", "bob", "--format", "csv", "--output", str(path))
    rows = list(csv.DictReader(io.StringIO(path.read_text(), newline="")))
    assert [row["balance"] for row in rows] == ["0.00", "2.50", "2.50"]
    earlier = weft(data, "books", "statement", "alice", "--from", "2020-01-01", "--to", "2020-12-31")
    assert "0 transfers" in earlier


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("statement", "carol"), "has no account"),
        (("statement", "0" * 32), "There is no account"),
        (("statement", "alice", "--from", "yesterday"), "takes a day such as"),
        (("statement", "alice", "--to", "9999-12-31"), "takes a day such as"),
        (("statement", "alice", "--from", "2026-02-01", "--to", "2026-01-01"), "--to is before --from"),
        (("export", "--format", "csv", "--output", "/nowhere/at/all.csv"), "No such file"),
    ],
)
def test_a_book_that_can_not_be_written_is_one_sentence(
    data: Path, arguments: tuple[str, ...], words: str
) -> None:
    assert words in refused(data, "books", *arguments)


def test_beancount_accepts_what_is_exported(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "books.beancount"
    weft(data, "books", "export", "--format", "beancount", "--output", str(path))
    check = Path(sys.executable).with_name("bean-check")
    done = subprocess.run([check, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert weft(data, "books", "export", "--format", "csv").count("\n") == 3
    assert list(tmp_path.iterdir()) == [path]
