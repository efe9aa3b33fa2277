"""`weft wallet peer …` as operators run it, on a data folder where nothing runs."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from tests.stack import run_weft


def test_a_peer_is_named_limited_listed_and_removed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert run_weft("init", "--server-name", "a.example", data=data).returncode == 0
    added = run_weft("wallet", "peer", "add", "b.example", "--credit-limit", "1000 EUR", data=data)
    assert added.returncode == 0 and "b.example is a peer" in added.stdout, added.stderr
    (peer,) = json.loads(run_weft("wallet", "peers", "--json", data=data).stdout)
    assert peer["allowed"] and peer["wallet"] == "@wallet:b.example"
    assert peer["positions"] == [
        {
            "currency": "EUR",
            "owed_minor": "0",
            "limit_minor": "100000",
            "paying_minor": "0",
            "used_percent": 0,
        }
    ]
    changed = run_weft("wallet", "peer", "set", "b.example", "--credit-limit", "€20", data=data)
    assert changed.returncode == 0, changed.stderr
    shown = run_weft("wallet", "peer", "list", data=data).stdout
    assert "b.example" in shown and "€20.00" in shown and "no link yet" in shown
    assert run_weft("wallet", "peer", "remove", "b.example", data=data).returncode == 0
    assert "removed" in run_weft("wallet", "peers", data=data).stdout
    # The credit was money in the ledger, and its books still add up.
    assert run_weft("wallet", "verify", data=data).returncode == 0


def test_what_can_not_be_a_peer_is_refused_in_one_sentence(tmp_path: Path) -> None:
    data = tmp_path / "data"
    run_weft("init", "--server-name", "a.example", data=data)
    for arguments, words in (
        (("add", "a.example"), "this server itself"),
        (("add", "b.example", "--credit-limit", "many euros"), "amount"),
        (("set", "b.example", "--credit-limit", "1 EUR"), "is no peer"),
        (("mend", "b.example"), "no link"),
    ):
        done = run_weft("wallet", "peer", *arguments, data=data)
        assert done.returncode == 1 and words in done.stderr, (arguments, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_doctor_says_that_a_link_has_stopped_and_where_to_read_on(tmp_path: Path) -> None:
    data = tmp_path / "data"
    run_weft("init", "--server-name", "a.example", data=data)
    run_weft("wallet", "peers", data=data)
    columns = {
        "peer": "@wallet:b.example", "state": "stopped", "reason": "forked", "detail": "message 2",
        "stopped_at_ms": 1, "room_id": None, "room_is_ours": False, "peer_keys": "{}", "wish": "",
        "out_epoch": 1, "out_seq": 0, "out_chain": "", "out_acked": 0, "out_acked_at_ms": 0,
        "in_epoch": 0, "in_seq": 0, "in_chain": "", "in_floor": 0, "heard_at_ms": 0, "created_at_ms": 1,
    }  # fmt: skip
    with sqlite3.connect(data / "wallet.db") as connection:
        marks = ", ".join("?" for _ in columns)
        connection.execute(f"INSERT INTO links ({', '.join(columns)}) VALUES ({marks})", [*columns.values()])
    told = json.loads(run_weft("doctor", "--json", data=data).stdout)
    (finding,) = [finding for finding in told if finding["name"] == "Link with @wallet:b.example"]
    assert not finding["ok"] and "forked" in finding["detail"] and "peers.md" in finding["remedy"]
