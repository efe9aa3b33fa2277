"""The ledger's rules, one transfer and one chain at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from appservices.vocabulary.ids import AccountId, TransferId
from appservices.vocabulary.money import AMOUNT_MINOR_MAX, CurrencyCode
from tests.ledger_samples import (
    ALICE,
    BOB,
    EUR,
    ISSUANCE,
    PEOPLE,
    deposit,
    judged,
    payment,
    refusals,
    transfer_id,
)
from wallet_appservice.ledger.rules import open_accounts
from wallet_appservice.ledger.values import (
    BALANCE_MINOR_MAX,
    AccountKind,
    AccountRefusal,
    Transfer,
    TransferCode,
    TransferMode,
    TransferRefusal,
    account_for,
    expiry_of,
    posting_of,
    voiding_of,
)
from wallet_appservice.ledger.view import Loaded, View

NOW = 1_795_305_600_000
PENDING = TransferMode.PENDING
HOUR = account_for(AccountKind.USER, owner="@alice:a.example", currency=CurrencyCode("HOUR"))
NOBODY = account_for(AccountKind.USER, owner="@nobody:a.example", currency=EUR)


@pytest.fixture
def view() -> View:
    """Alice has 100, Bob nothing."""
    view = View(Loaded())
    open_accounts(view, (*PEOPLE, HOUR))
    assert refusals(judged(view, (deposit("opening", ALICE, 100),), at_ms=NOW)) == [None]
    return view


def answers(view: View, *transfers: Transfer, at_ms: int = NOW) -> list[TransferRefusal | None]:
    return refusals(judged(view, transfers, at_ms=at_ms))


def available(view: View, account: Any) -> int:
    return view.sums[account.id].as_account().available_minor


def test_a_transfer_moves_its_amount_from_one_account_to_the_other(view: View) -> None:
    assert answers(view, payment("tea", ALICE, BOB, 30)) == [None]
    assert (available(view, ALICE), available(view, BOB)) == (70, 30)
    assert view.sums[ISSUANCE.id].as_account().posted_minor == -100


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"id": TransferId("")}, TransferRefusal.ID_INVALID),
        ({"id": TransferId("A" * 32)}, TransferRefusal.ID_INVALID),
        ({"debit_account_id": AccountId("alice")}, TransferRefusal.ACCOUNT_ID_INVALID),
        ({"pending_id": transfer_id("x")}, TransferRefusal.PENDING_ID_INVALID),
        ({"mode": TransferMode.POST_PENDING}, TransferRefusal.PENDING_ID_INVALID),
        (
            {"mode": TransferMode.POST_PENDING, "pending_id": transfer_id("tea")},
            TransferRefusal.PENDING_ID_INVALID,
        ),
        ({"timeout_seconds": 5}, TransferRefusal.TIMEOUT_INVALID),
        ({"mode": PENDING, "timeout_seconds": 0}, TransferRefusal.TIMEOUT_INVALID),
        ({"mode": PENDING, "timeout_seconds": 10**12}, TransferRefusal.TIMEOUT_INVALID),
        ({"mode": PENDING, "timeout_seconds": 1.5}, TransferRefusal.TIMEOUT_INVALID),
        ({"reference": "x" * 129}, TransferRefusal.REFERENCE_INVALID),
        ({"reference": "\x00"}, TransferRefusal.REFERENCE_INVALID),
        ({"reference": "\ud800"}, TransferRefusal.REFERENCE_INVALID),
        ({"currency": CurrencyCode("eur")}, TransferRefusal.CURRENCY_INVALID),
        ({"amount_minor": float("nan")}, TransferRefusal.AMOUNT_NOT_WHOLE),
        ({"amount_minor": 1.0}, TransferRefusal.AMOUNT_NOT_WHOLE),
        ({"amount_minor": True}, TransferRefusal.AMOUNT_NOT_WHOLE),
        ({"amount_minor": 0}, TransferRefusal.AMOUNT_ZERO),
        ({"amount_minor": -1}, TransferRefusal.AMOUNT_NEGATIVE),
        ({"amount_minor": AMOUNT_MINOR_MAX + 1}, TransferRefusal.AMOUNT_TOO_BIG),
        ({"amount_minor": 10**400}, TransferRefusal.AMOUNT_TOO_BIG),
        ({"credit_account_id": ALICE.id}, TransferRefusal.SAME_ACCOUNT),
        ({"debit_account_id": NOBODY.id}, TransferRefusal.DEBIT_ACCOUNT_NOT_FOUND),
        ({"credit_account_id": NOBODY.id}, TransferRefusal.CREDIT_ACCOUNT_NOT_FOUND),
        ({"currency": CurrencyCode("HOUR")}, TransferRefusal.CURRENCY_DIFFERS),
        ({"credit_account_id": HOUR.id}, TransferRefusal.CURRENCY_DIFFERS),
        (
            {"mode": TransferMode.POST_PENDING, "pending_id": transfer_id("none")},
            TransferRefusal.PENDING_NOT_FOUND,
        ),
        (
            {"mode": TransferMode.VOID_PENDING, "pending_id": transfer_id("opening")},
            TransferRefusal.NOT_PENDING,
        ),
        ({"amount_minor": 101}, TransferRefusal.BALANCE_TOO_LOW),
    ],
)
def test_a_faulty_transfer_is_refused_and_moves_nothing(
    view: View, changes: dict[str, Any], refusal: TransferRefusal
) -> None:
    before = {id: sums.as_account() for id, sums in view.sums.items()}
    assert answers(view, payment("tea", ALICE, BOB, 30)._replace(**changes)) == [refusal]
    assert {id: sums.as_account() for id, sums in view.sums.items()} == before


def test_a_transfer_is_refused_for_its_most_fundamental_reason(view: View) -> None:
    transfer = payment("worst", NOBODY, NOBODY, -1)._replace(
        id=TransferId("?"),
        reference="x" * 500,
        currency=CurrencyCode(""),
        timeout_seconds=-1,
    )
    repairs: list[tuple[TransferRefusal, dict[str, Any]]] = [
        (TransferRefusal.ID_INVALID, {"id": transfer_id("opening")}),
        (TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT, {"id": transfer_id("worst")}),
        (TransferRefusal.TIMEOUT_INVALID, {"timeout_seconds": None}),
        (TransferRefusal.REFERENCE_INVALID, {"reference": ""}),
        (TransferRefusal.CURRENCY_INVALID, {"currency": EUR}),
        (TransferRefusal.AMOUNT_NEGATIVE, {"amount_minor": AMOUNT_MINOR_MAX}),
        (TransferRefusal.SAME_ACCOUNT, {"credit_account_id": HOUR.id}),
        (TransferRefusal.DEBIT_ACCOUNT_NOT_FOUND, {"id": transfer_id("2"), "debit_account_id": ALICE.id}),
        (TransferRefusal.CURRENCY_DIFFERS, {"id": transfer_id("3"), "credit_account_id": BOB.id}),
        (TransferRefusal.BALANCE_TOO_LOW, {"id": transfer_id("4"), "amount_minor": 100}),
    ]
    for refusal, repair in repairs:
        assert answers(view, transfer) == [refusal]
        transfer = transfer._replace(**repair)
    assert answers(view, transfer) == [None]


def test_refusals_are_declared_in_the_order_in_which_they_are_found() -> None:
    declared = list(TransferRefusal)
    assert declared.index(TransferRefusal.ID_INVALID) < declared.index(TransferRefusal.AMOUNT_ZERO)
    assert declared[0] is TransferRefusal.LINKED_CHAIN_BROKEN
    assert declared[-1] is TransferRefusal.BALANCE_TOO_HIGH


def test_a_repeated_id_gets_the_first_answer_and_moves_nothing(view: View) -> None:
    (first,) = judged(view, (payment("tea", ALICE, BOB, 30),), at_ms=NOW)
    (again,) = judged(view, (payment("tea", ALICE, BOB, 30),), at_ms=NOW + 5_000)
    assert again == first._replace(replayed=True)
    assert available(view, BOB) == 30


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_minor": 31},
        {"credit_account_id": ISSUANCE.id},
        {"code": TransferCode.REFUND},
        {"reference": "other"},
        {"mode": PENDING},
        {"amount_minor": -1},
        {"amount_minor": 30.0},
        {"reference": "\ud800"},
    ],
)
@pytest.mark.parametrize("amount_minor", [30, 3_000])
def test_a_known_id_with_other_content_is_refused(
    view: View, changes: dict[str, Any], amount_minor: int
) -> None:
    answers(view, payment("tea", ALICE, BOB, amount_minor))
    other = payment("tea", ALICE, BOB, amount_minor)._replace(**changes)
    assert answers(view, other) == [TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT]


def test_a_refused_id_stays_refused_when_the_balance_suffices_later(view: View) -> None:
    transfer = payment("car", ALICE, BOB, 5_000)
    (first,) = judged(view, (transfer,), at_ms=NOW)
    answers(view, deposit("salary", ALICE, 9_000))
    (again,) = judged(view, (transfer,), at_ms=NOW + 1)
    assert (again.refusal, again.at_ms, again.replayed) == (
        TransferRefusal.BALANCE_TOO_LOW,
        first.at_ms,
        True,
    )
    assert answers(view, payment("car, asked anew", ALICE, BOB, 5_000)) == [None]


def test_what_its_content_alone_forbids_leaves_no_trace(view: View) -> None:
    before = view.changes()
    answers(view, payment("nothing", ALICE, BOB, 0), payment("self", ALICE, ALICE, 1))
    assert view.changes() == before


def test_sums_stop_before_they_overflow(view: View) -> None:
    bank = account_for(AccountKind.SUSPENSE, owner="suspense", currency=EUR)
    open_accounts(view, (bank,))
    account = view.sums[bank.id]
    account.credits_posted = BALANCE_MINOR_MAX - 10
    assert answers(view, deposit("little", bank, 10)) == [None]
    assert answers(view, deposit("drop", bank, 1)) == [TransferRefusal.BALANCE_OVERFLOW]


def test_a_debit_account_may_not_be_overfilled_when_it_says_so(view: View) -> None:
    loan = replace(
        account_for(AccountKind.SUSPENSE, owner="loan", currency=EUR), credits_must_not_exceed_debits=True
    )
    open_accounts(view, (loan,))
    assert answers(view, payment("lend", loan, BOB, 50), payment("repay too much", ALICE, loan, 51)) == [
        None,
        TransferRefusal.BALANCE_TOO_HIGH,
    ]
    held = payment("repay a part", ALICE, loan, 30, mode=PENDING)
    assert answers(view, held, payment("repay", BOB, loan, 21), payment("the rest", BOB, loan, 20)) == [
        None,
        TransferRefusal.BALANCE_TOO_HIGH,
        None,
    ]


# Pending transfers


def test_a_pending_debit_counts_against_the_balance(view: View) -> None:
    assert answers(view, payment("hold", ALICE, BOB, 80, mode=PENDING)) == [None]
    assert (available(view, ALICE), available(view, BOB)) == (20, 0)
    assert answers(view, payment("tea", ALICE, BOB, 21)) == [TransferRefusal.BALANCE_TOO_LOW]


def test_a_pending_credit_can_not_be_spent(view: View) -> None:
    assert answers(view, payment("hold", ALICE, BOB, 80, mode=PENDING), payment("spend", BOB, ALICE, 1)) == [
        None,
        TransferRefusal.BALANCE_TOO_LOW,
    ]


def test_posting_moves_what_was_held_and_voiding_releases_it(view: View) -> None:
    first, second = (payment(name, ALICE, BOB, 40, mode=PENDING) for name in ("1", "2"))
    assert (
        answers(
            view,
            first,
            second,
            posting_of(first, id=transfer_id("post")),
            voiding_of(second, id=transfer_id("void")),
        )
        == [None] * 4
    )
    assert (available(view, ALICE), available(view, BOB)) == (60, 40)


def test_posting_less_releases_the_rest(view: View) -> None:
    hold = payment("hold", ALICE, BOB, 80, mode=PENDING)
    assert answers(view, hold, posting_of(hold, id=transfer_id("post"), amount_minor=30)) == [None, None]
    assert (available(view, ALICE), available(view, BOB)) == (70, 30)


def test_a_pending_transfer_ends_once(view: View) -> None:
    hold = payment("hold", ALICE, BOB, 80, mode=PENDING)
    endings = (posting_of(hold, id=transfer_id("1")), voiding_of(hold, id=transfer_id("2")))
    assert answers(view, hold, *endings) == [None, None, TransferRefusal.PENDING_ALREADY_POSTED]
    other = payment("other", ALICE, BOB, 20, mode=PENDING)
    endings = (voiding_of(other, id=transfer_id("3")), posting_of(other, id=transfer_id("4")))
    assert answers(view, other, *endings) == [None, None, TransferRefusal.PENDING_ALREADY_VOIDED]


def test_posting_more_than_is_held_is_refused(view: View) -> None:
    hold = payment("hold", ALICE, BOB, 80, mode=PENDING)
    more = posting_of(hold, id=transfer_id("post"), amount_minor=81)
    assert answers(view, hold, more) == [None, TransferRefusal.AMOUNT_EXCEEDS_PENDING]


@pytest.mark.parametrize(
    "changes",
    [{"credit_account_id": ISSUANCE.id}, {"code": TransferCode.REFUND}, {"amount_minor": 79}],
)
def test_an_ending_that_differs_from_its_pending_transfer_is_refused(
    view: View, changes: dict[str, Any]
) -> None:
    hold = payment("hold", ALICE, BOB, 80, mode=PENDING)
    ending = voiding_of(hold, id=transfer_id("void"))._replace(**changes)
    assert answers(view, hold, ending) == [None, TransferRefusal.PENDING_DIFFERS]


def test_after_its_time_a_pending_transfer_can_only_be_expired(view: View) -> None:
    hold = payment("hold", ALICE, BOB, 80, mode=PENDING, timeout_seconds=60)
    assert answers(view, hold) == [None]
    assert answers(view, expiry_of(hold), at_ms=NOW + 59_999) == [TransferRefusal.PENDING_NOT_EXPIRED]
    late = (posting_of(hold, id=transfer_id("post")), voiding_of(hold, id=transfer_id("void")))
    assert answers(view, *late, at_ms=NOW + 60_000) == [TransferRefusal.PENDING_EXPIRED] * 2
    assert answers(view, expiry_of(hold), at_ms=NOW + 60_000) == [None]
    assert available(view, ALICE) == 100
    assert answers(view, posting_of(hold, id=transfer_id("later")), at_ms=NOW) == [
        TransferRefusal.PENDING_EXPIRED
    ]


def test_without_a_time_out_a_pending_transfer_never_expires(view: View) -> None:
    hold = payment("hold", ALICE, BOB, 80, mode=PENDING)
    assert answers(view, hold, expiry_of(hold), at_ms=2**52) == [None, TransferRefusal.PENDING_NOT_EXPIRED]


# Chains


def test_a_chain_happens_wholly_or_not_at_all(view: View) -> None:
    chain = (
        payment("1", ALICE, BOB, 60, linked=True),
        payment("2", ALICE, BOB, 60, linked=True),
        payment("3", BOB, ALICE, 1),
    )
    broken = TransferRefusal.LINKED_CHAIN_BROKEN
    assert answers(view, *chain) == [broken, TransferRefusal.BALANCE_TOO_LOW, broken]
    assert (available(view, ALICE), available(view, BOB)) == (100, 0)
    good = (payment("4", ALICE, BOB, 60, linked=True), payment("5", BOB, ALICE, 10))
    assert answers(view, *good) == [None, None]
    assert (available(view, ALICE), available(view, BOB)) == (50, 50)


def test_a_broken_chain_leaves_its_neighbours_alone(view: View) -> None:
    assert answers(
        view,
        payment("before", ALICE, BOB, 10),
        payment("1", ALICE, BOB, 10, linked=True),
        payment("2", ALICE, BOB, 0),
        payment("after", ALICE, BOB, 10),
    ) == [None, TransferRefusal.LINKED_CHAIN_BROKEN, TransferRefusal.AMOUNT_ZERO, None]
    assert available(view, BOB) == 20


def test_a_chain_that_is_linked_to_nothing_is_refused(view: View) -> None:
    chain = (payment("1", ALICE, BOB, 1, linked=True), payment("2", ALICE, BOB, 1, linked=True))
    assert answers(view, *chain) == [TransferRefusal.LINKED_CHAIN_BROKEN, TransferRefusal.LINKED_CHAIN_OPEN]


@pytest.mark.parametrize("amount_minor", [10, 1_000])
def test_a_repeated_chain_gets_its_first_answers(view: View, amount_minor: int) -> None:
    chain = (payment("1", ALICE, BOB, 10, linked=True), payment("2", ALICE, BOB, amount_minor))
    first = judged(view, chain, at_ms=NOW)
    answers(view, deposit("more", ALICE, 10_000))
    again = judged(view, chain, at_ms=NOW + 1)
    assert again == tuple(result._replace(replayed=True) for result in first)


def test_a_member_of_an_applied_chain_is_not_taken_for_another_chain(view: View) -> None:
    chain = (payment("1", ALICE, BOB, 10, linked=True), payment("2", ALICE, BOB, 10))
    assert answers(view, *chain) == [None, None]
    mixed = (payment("new", ALICE, BOB, 10, linked=True), chain[1])
    assert answers(view, *mixed) == [
        TransferRefusal.LINKED_CHAIN_BROKEN,
        TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT,
    ]
    assert available(view, BOB) == 20


def test_an_id_twice_in_one_chain_breaks_it(view: View) -> None:
    twice = payment("1", ALICE, BOB, 10, linked=True)
    assert answers(view, twice, twice, payment("2", ALICE, BOB, 10)) == [
        TransferRefusal.LINKED_CHAIN_BROKEN,
        TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT,
        TransferRefusal.LINKED_CHAIN_BROKEN,
    ]
    assert available(view, BOB) == 0


def test_a_member_of_a_broken_chain_does_not_happen_later_on_its_own(view: View) -> None:
    chain = (payment("1", ALICE, BOB, 1_000, linked=True), payment("2", ALICE, BOB, 10))
    answers(view, *chain)
    assert answers(view, chain[1]) == [TransferRefusal.LINKED_CHAIN_BROKEN]


def test_a_pending_transfer_may_be_posted_in_the_chain_that_makes_it(view: View) -> None:
    hold = payment("hold", ALICE, BOB, 50, mode=PENDING, linked=True)
    chain = (hold, posting_of(hold, id=transfer_id("post")))
    assert answers(view, *chain) == [None, None]
    broken = payment("hold 2", ALICE, BOB, 50, mode=PENDING, linked=True)
    ending = posting_of(broken, id=transfer_id("post 2"))._replace(linked=True)
    assert answers(view, broken, ending, payment("too much", ALICE, BOB, 1)) == [
        TransferRefusal.LINKED_CHAIN_BROKEN,
        TransferRefusal.LINKED_CHAIN_BROKEN,
        TransferRefusal.BALANCE_TOO_LOW,
    ]
    assert (available(view, ALICE), available(view, BOB)) == (50, 50)


# Accounts


def test_opening_an_account_again_changes_nothing(view: View) -> None:
    (result,) = open_accounts(view, (ALICE,))
    assert result.refusal is None
    assert available(view, ALICE) == 100


@pytest.mark.parametrize(
    ("account", "refusal"),
    [
        (replace(ALICE, id=AccountId("alice")), AccountRefusal.ID_INVALID),
        (replace(ALICE, owner="@eve:a.example"), AccountRefusal.EXISTS_WITH_DIFFERENT_CONTENT),
        (
            replace(ALICE, debits_must_not_exceed_credits=False),
            AccountRefusal.EXISTS_WITH_DIFFERENT_CONTENT,
        ),
        (replace(NOBODY, owner=""), AccountRefusal.OWNER_INVALID),
        (replace(NOBODY, owner="@" + "x" * 255), AccountRefusal.OWNER_INVALID),
        (replace(NOBODY, owner="\x00"), AccountRefusal.OWNER_INVALID),
        (replace(NOBODY, currency=CurrencyCode("€")), AccountRefusal.CURRENCY_INVALID),
    ],
)
def test_a_faulty_account_is_not_opened(view: View, account: Any, refusal: AccountRefusal) -> None:
    (result,) = open_accounts(view, (account,))
    assert result.refusal is refusal


def test_a_transfer_with_a_refused_account_is_refused(view: View) -> None:
    (result,) = judged(
        view, (payment("tea", ALICE, BOB, 1),), at_ms=NOW, accounts_refused=frozenset({BOB.id})
    )
    assert result.refusal is TransferRefusal.ACCOUNT_REFUSED
