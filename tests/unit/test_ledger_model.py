"""The ledger's rules against a model of random commands: money is conserved, limits hold, ids answer once.

The model keeps no sums of its own. After each step it adds up all that was ever applied, from the transfers
alone, and compares; batches are loaded and judged as the engine does it, with only what each one needs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from appservices.vocabulary.money import CurrencyCode
from tests.ledger_samples import four_sums, judged, payment, transfer_id, with_sums
from wallet_appservice.ledger.rules import content_refusal, open_accounts
from wallet_appservice.ledger.values import (
    Account,
    AccountKind,
    StoredTransfer,
    Transfer,
    TransferCode,
    TransferMode,
    TransferRefusal,
    TransferResult,
    account_for,
    expiry_of,
    posting_of,
    voiding_of,
)
from wallet_appservice.ledger.view import Loaded, StoredRefusal, View

CURRENCIES = (CurrencyCode("EUR"), CurrencyCode("HOUR"))
LOAN_LIMITED = replace(
    account_for(AccountKind.SUSPENSE, owner="loans", currency=CURRENCIES[0]),
    credits_must_not_exceed_debits=True,
)
ISSUERS = {
    currency: account_for(AccountKind.ISSUANCE, owner="issuance", currency=currency)
    for currency in CURRENCIES
}
USERS = tuple(
    account_for(AccountKind.USER, owner=f"@{name}:a.example", currency=currency)
    for name in ("alice", "bob")
    for currency in CURRENCIES
)
ACCOUNTS = (*ISSUERS.values(), *USERS, LOAN_LIMITED)
TIMEOUT_SECONDS = 60

moving = st.builds(
    lambda name, debit, credit, amount, currency, mode, linked: Transfer(
        id=transfer_id(str(name)),
        debit_account_id=debit.id,
        credit_account_id=credit.id,
        amount_minor=amount,
        currency=debit.currency if currency is None else currency,
        code=TransferCode.PAYMENT,
        mode=mode,
        timeout_seconds=TIMEOUT_SECONDS if mode is TransferMode.PENDING and amount % 2 else None,
        linked=linked,
    ),
    name=st.integers(0, 60),
    debit=st.sampled_from(ACCOUNTS),
    credit=st.sampled_from(ACCOUNTS),
    amount=st.integers(-1, 40),
    currency=st.sampled_from([None, None, None, *CURRENCIES]),
    mode=st.sampled_from([TransferMode.SINGLE_PHASE, TransferMode.PENDING]),
    linked=st.sampled_from([False, False, False, True]),
)


class LedgerModel(RuleBasedStateMachine):
    """Batches of random commands on a small ledger that is kept outside the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_795_305_600_000
        self.accounts: dict[str, Account] = {}
        self.transfers: dict[str, StoredTransfer] = {}
        self.refused: dict[str, StoredRefusal] = {}
        self.first_answers: dict[Transfer, TransferResult] = {}
        view = View(Loaded())
        open_accounts(view, ACCOUNTS)
        self.accounts = {account.id: account for account in view.changes().opened}
        self.apply([payment(f"opening {user.id}", ISSUERS[user.currency], user, 30) for user in USERS])

    @rule(user=st.sampled_from(range(4)), numbers=st.lists(st.integers(0, 200), min_size=2, max_size=4))
    def spend_twice(self, user: int, numbers: list[int]) -> None:
        """Holds and pays more than there is, to whoever else has that currency."""
        debit, credit = USERS[user], USERS[(user + 2) % 4]
        modes = (TransferMode.PENDING, TransferMode.SINGLE_PHASE)
        self.apply(
            [
                payment(f"spend {number}", debit, credit, 12 + number % 9, mode=modes[number % 2])
                for number in numbers
            ]
        )

    @rule(transfers=st.lists(moving, min_size=1, max_size=8))
    def submit(self, transfers: list[Transfer]) -> None:
        self.apply(transfers)

    @rule(data=st.data(), linked=st.booleans(), amount=st.one_of(st.none(), st.integers(1, 40)))
    def end_pending(self, data: st.DataObject, linked: bool, amount: int | None) -> None:
        names = [stored.transfer for stored in self.transfers.values()]
        pending = [transfer for transfer in names if transfer.mode is TransferMode.PENDING]
        if not pending:
            return
        chosen = data.draw(st.lists(st.sampled_from(pending), min_size=1, max_size=4))
        kinds = data.draw(st.lists(st.integers(0, 2), min_size=len(chosen), max_size=len(chosen)))
        numbers = data.draw(st.lists(st.integers(0, 30), min_size=len(chosen), max_size=len(chosen)))
        endings = []
        for item, kind, number in zip(chosen, kinds, numbers, strict=True):
            id = transfer_id(f"ending {number}")
            ending = (
                posting_of(item, id=id, amount_minor=amount),
                voiding_of(item, id=id),
                expiry_of(item),
            )[kind]
            endings.append(ending._replace(linked=linked))
        self.apply(endings)

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        if self.first_answers:
            known = sorted(self.first_answers, key=lambda transfer: (transfer.id, str(transfer)))
            again = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=5))
            self.apply([transfer for transfer in again if not transfer.linked])

    @rule(seconds=st.integers(-TIMEOUT_SECONDS, 2 * TIMEOUT_SECONDS))
    def let_the_clock_jump(self, seconds: int) -> None:
        self.now_ms += seconds * 1000

    def apply(self, transfers: list[Transfer]) -> None:
        wanted = {item.id for item in transfers} | {item.pending_id for item in transfers}
        ids = {id for item in transfers for id in (item.debit_account_id, item.credit_account_id)}
        view = View(
            Loaded(
                accounts=[self.accounts[id] for id in sorted(ids)],
                transfers=[stored for id, stored in self.transfers.items() if id in wanted],
                refusals=[stored for id, stored in self.refused.items() if id in wanted],
                position=len(self.transfers),
            )
        )
        mark = view.mark()
        results = judged(view, transfers, at_ms=self.now_ms)
        changes = view.changes()
        view.roll_back(mark)
        assert not view.changes().transfers
        assert judged(view, transfers, at_ms=self.now_ms) == results, "rolling back was incomplete"
        assert view.changes() == changes
        self.check_results(transfers, results, {stored.transfer.id for stored in changes.transfers})
        for stored in changes.transfers:
            self.transfers[stored.transfer.id] = stored
        for stored in changes.transfers:
            if stored.transfer.pending_id is not None:
                pending = self.transfers[stored.transfer.pending_id]
                assert pending.ended_by is None, "a pending transfer ended twice"
                self.transfers[pending.transfer.id] = pending._replace(ended_by=stored.transfer.mode)
        self.refused.update({stored.id: stored for stored in changes.refusals})
        for id, before, after in changes.changed:
            account = self.accounts[id]
            assert four_sums(account) == before
            self.accounts[id] = with_sums(account, after)

    def check_results(
        self, transfers: list[Transfer], results: tuple[TransferResult, ...], applied: set[str]
    ) -> None:
        assert [result.transfer for result in results] == transfers
        for result in results:
            transfer = result.transfer
            first = self.first_answers.get(transfer)
            if not transfer.linked and first is not None and first.refusal is None:
                differs = TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT
                assert result.refusal in (None, differs), "what was applied was denied"
                assert result.replayed or result.refusal is differs
            if result.refusal is None and not result.replayed:
                assert transfer.id in applied
                assert transfer.id not in self.transfers, "an id was applied twice"
                assert transfer.id not in self.refused, "a refused id was applied later"
                self.first_answers[transfer] = result
            elif result.refusal is not None and not result.replayed:
                # What is wrong in itself spends no id: another transfer of the same batch may have it.
                assert transfer.id not in applied or result.refusal in (
                    TransferRefusal.ID_EXISTS_WITH_DIFFERENT_CONTENT,
                    content_refusal(transfer),
                )
        self.check_chains(results)

    def check_chains(self, results: tuple[TransferResult, ...]) -> None:
        chain: list[TransferResult] = []
        for index, result in enumerate(results):
            chain.append(result)
            if not result.transfer.linked or index == len(results) - 1:
                fresh = [not item.replayed and item.refusal is None for item in chain]
                assert all(fresh) or not any(fresh), "a chain happened in part"
                if chain[-1].transfer.linked:
                    assert not any(fresh), "an open chain happened"
                chain = []

    @invariant()
    def sums_follow_from_the_transfers(self) -> None:
        computed: Counter[tuple[str, str]] = Counter()
        for stored in self.transfers.values():
            transfer = stored.transfer
            sides = (("debits", transfer.debit_account_id), ("credits", transfer.credit_account_id))
            for side, account_id in sides:
                if transfer.mode is TransferMode.PENDING and stored.ended_by is None:
                    computed[account_id, f"{side}_pending"] += transfer.amount_minor
                elif transfer.mode in (TransferMode.SINGLE_PHASE, TransferMode.POST_PENDING):
                    computed[account_id, f"{side}_posted"] += transfer.amount_minor
        for account in self.accounts.values():
            for name in ("debits_pending", "debits_posted", "credits_pending", "credits_posted"):
                assert getattr(account, name) == computed[account.id, name]

    @invariant()
    def money_is_conserved(self) -> None:
        for currency in CURRENCIES:
            accounts = [account for account in self.accounts.values() if account.currency == currency]
            assert sum(account.posted_minor for account in accounts) == 0
            assert sum(account.held_minor - account.incoming_minor for account in accounts) == 0

    @invariant()
    def limits_hold(self) -> None:
        for account in self.accounts.values():
            if account.debits_must_not_exceed_credits:
                assert account.available_minor >= 0
            if account.credits_must_not_exceed_debits:
                assert account.credits_posted + account.credits_pending <= account.debits_posted

    @invariant()
    def positions_have_no_gaps(self) -> None:
        positions = sorted(stored.position for stored in self.transfers.values())
        assert positions == list(range(1, len(positions) + 1))


TestLedgerModel = LedgerModel.TestCase
TestLedgerModel.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
