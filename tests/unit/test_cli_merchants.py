"""`weft wallet merchant`, run as operators run it, on a data folder where nothing runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.stack import run_weft


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    assert run_weft("init", data=data).returncode == 0
    return data


def test_an_operator_opens_lists_and_closes_a_merchant(data: Path) -> None:
    assert "no merchant yet" in run_weft("wallet", "merchant", "list", data=data).stdout
    added = run_weft("wallet", "merchant", "add", "alice", "Bakery", data=data)
    assert added.returncode == 0, added.stderr
    assert added.stdout.startswith("Bakery belongs to @alice:localhost")
    (id,) = re.findall(r"^Merchant ([0-9a-f]{32})$", added.stdout, re.MULTILINE)
    key = run_weft("wallet", "merchant", "key", id, "till", "--scope", "charges", data=data)
    assert re.fullmatch(r"weft_sk_[0-9a-f]{16}_[0-9a-f]{64}\n", key.stdout), key.stderr
    secret = run_weft("wallet", "merchant", "endpoint", id, "https://shop.example/weft", data=data)
    assert secret.stdout.startswith("whsec_")
    listed = run_weft("wallet", "merchant", "list", data=data).stdout
    assert "Bakery" in listed and "@alice:localhost" in listed and id in listed
    assert run_weft("wallet", "merchant", "close", id, data=data).stdout == "Bakery takes no more money.\n"
    assert "Bakery (closed)" in run_weft("wallet", "merchant", "list", data=data).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "@alice:elsewhere.example", "Bakery"), "is not a user of localhost"),
        (("add", "alice", ""), "A name is one line of 1 to 60 characters."),
        (("key", "nonsense", "till"), "There is no merchant nonsense"),
        (("close", "0" * 32), "There is no merchant 0000"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_sentence(
    data: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = run_weft("wallet", "merchant", *arguments, data=data)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
