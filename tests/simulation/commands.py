"""What simulated clients ask for: sensible, greedy, confused and absurd commands, all from one seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from random import Random
from typing import Any, Final

from appservices.vocabulary.ids import AccountId, TransferId
from appservices.vocabulary.money import AMOUNT_MINOR_MAX, CurrencyCode
from wallet_appservice.ledger.values import (
    AccountKind,
    NewAccount,
    Transfer,
    TransferCode,
    TransferMode,
    account_for,
    expiry_of,
    posting_of,
    voiding_of,
)

CURRENCIES: Final = (CurrencyCode("EUR"), CurrencyCode("HOUR"))
ISSUERS: Final = tuple(
    account_for(AccountKind.ISSUANCE, owner="issuance", currency=currency) for currency in CURRENCIES
)
HOT: Final = account_for(AccountKind.MERCHANT, owner="@popular:a.example", currency=CURRENCIES[0])
FEES: Final = account_for(AccountKind.FEE, owner="fees", currency=CURRENCIES[0])
LOANS: Final = replace(
    account_for(AccountKind.SUSPENSE, owner="loans", currency=CURRENCIES[0]),
    credits_must_not_exceed_debits=True,
)
PEOPLE: Final = tuple(
    account_for(AccountKind.USER, owner=f"@{name}:a.example", currency=currency)
    for name in ("alice", "bob", "carol", "dave", "erin")
    for currency in CURRENCIES
)
ABSURD: Final[tuple[dict[str, Any], ...]] = (
    *({"amount_minor": amount} for amount in (0, -1, -(2**63), AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX + 1)),
    *({"amount_minor": amount} for amount in (2**63, 10**40, 1.0, 0.1, math.nan, math.inf, -math.inf)),
    *({"amount_minor": amount} for amount in (True, None, "5", Decimal(5), Decimal("NaN"))),
    *({"timeout_seconds": timeout} for timeout in (0, -1, 1.5, True, 2**40)),
    *({"reference": words} for words in ("x" * 129, "a\x00b", "\ud800", "'; DROP TABLE ledger_head; --")),
    *({"currency": words} for words in ("eur", "", "EURO€", "HOUR")),
    *({"id": id} for id in ("", "0" * 31, "F" * 32, "g" * 32)),
    *({"debit_account_id": id} for id in ("", "0" * 32, "f" * 33)),
    {"pending_id": "1" * 32},
    {"mode": TransferMode.POST_PENDING},
)


class Poison(StrEnum):
    """How the effects of a request fail it, and it alone."""

    RAISES = "raises"
    IS_REFUSED = "is refused by the database"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sends, perhaps more than once."""

    number: int
    accounts: tuple[NewAccount, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    poison: Poison | None = None


class Clients:
    """Makes new requests. Deterministic: the same seed asks for the same, in the same order."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._requests = 0
        self._sent: list[Transfer] = []
        self._held: list[Transfer] = []

    def opening(self) -> list[Request]:
        """What a wallet begins with. Some people have no account yet, and get one when they are paid."""
        accounts = (*ISSUERS, HOT, FEES, LOANS, *PEOPLE[:6])
        deposits = [self._moving(ISSUERS[0], HOT, amount_minor=50)]
        deposits += [
            self._moving(ISSUERS[number % 2], PEOPLE[number], amount_minor=120) for number in range(6)
        ]
        return [self._request(accounts=accounts), *(self._request(transfers=(item,)) for item in deposits)]

    def next(self) -> Request:
        random = self._random
        makers = {
            self._pay: 8,
            self._pay_hot: 8,
            self._deposit: 7,
            self._hold: 8,
            self._end: 10,
            self._chain: 4,
            self._pay_with_fee: 3,
            self._change_what_was_sent: 3,
            self._absurd: 3,
            self._lend: 2,
        }
        (maker,) = random.choices(list(makers), weights=list(makers.values()))
        request = self._request(transfers=maker())
        if random.random() < 0.12:
            request = replace(request, accounts=self._some_accounts())
        if random.random() < 0.05:
            request = replace(request, poison=random.choice(list(Poison)))
        return request

    def _request(
        self, *, accounts: tuple[NewAccount, ...] = (), transfers: tuple[Transfer, ...] = ()
    ) -> Request:
        self._requests += 1
        self._sent.extend(transfers)
        self._held += [item for item in transfers if item.mode is TransferMode.PENDING]
        return Request(self._requests, accounts, transfers)

    def _pay(self) -> tuple[Transfer, ...]:
        debit, credit = self._two_people()
        return tuple(self._moving(debit, credit) for _ in range(self._random.choice((1, 1, 1, 2, 4))))

    def _pay_hot(self) -> tuple[Transfer, ...]:
        person = self._random.choice(PEOPLE[::2])
        debit, credit = (person, HOT) if self._random.random() < 0.7 else (HOT, person)
        mode = self._random.choice((TransferMode.SINGLE_PHASE, TransferMode.PENDING))
        return (self._moving(debit, credit, mode=mode, timeout_seconds=self._timeout(mode)),)

    def _deposit(self) -> tuple[Transfer, ...]:
        to = self._random.choice(PEOPLE)
        issuer = ISSUERS[CURRENCIES.index(to.currency)]
        debit, credit = (issuer, to) if self._random.random() < 0.8 else (to, issuer)
        amount = self._random.randint(20, 120)
        return (self._moving(debit, credit, code=TransferCode.DEPOSIT, amount_minor=amount),)

    def _lend(self) -> tuple[Transfer, ...]:
        """On the account whose credits must not exceed its debits."""
        sides = (LOANS, self._random.choice(PEOPLE[::2]))
        return (self._moving(*(sides if self._random.random() < 0.5 else sides[::-1])),)

    def _hold(self) -> tuple[Transfer, ...]:
        """Often more in sum than there is."""
        debit, credit = self._two_people()
        pending = TransferMode.PENDING
        return tuple(
            self._moving(debit, credit, mode=pending, timeout_seconds=self._timeout(pending))
            for _ in range(self._random.choice((1, 1, 2, 3)))
        )

    def _end(self) -> tuple[Transfer, ...]:
        """What is held ends once, in whichever way comes first, however many try."""
        if not self._held:
            return self._hold()
        random = self._random
        endings: list[Transfer] = []
        held = random.choice(self._held[-8:])
        for _ in range(random.choice((1, 1, 2, 3))):
            if random.random() < 0.4:
                held = random.choice(self._held)
            most = held.amount_minor if type(held.amount_minor) is int else 1
            part = random.choice((None, random.randint(1, max(1, min(most, 40))), random.randint(1, 40)))
            ending = random.choice(
                (
                    posting_of(held, id=self._id(), amount_minor=part),
                    posting_of(held, id=self._id()),
                    voiding_of(held, id=self._id()),
                    expiry_of(held),
                )
            )
            if random.random() < 0.06:
                ending = ending._replace(code=TransferCode.REFUND)
            endings.append(ending._replace(linked=False))
        return tuple(endings)

    def _chain(self) -> tuple[Transfer, ...]:
        random = self._random
        links = [*self._pay(), *random.choice((self._pay, self._hold, self._end, self._deposit))()]
        links += self._absurd() if random.random() < 0.1 else ()
        open_end = random.random() < 0.05
        chain = [item._replace(linked=True) for item in links[:-1]] + [links[-1]._replace(linked=open_end)]
        if random.random() < 0.15:
            chain.append(self._moving(*self._two_people()))
        return tuple(chain)

    def _pay_with_fee(self) -> tuple[Transfer, ...]:
        """The fee may be what overdraws the account; then neither is paid."""
        person = self._random.choice(PEOPLE[::2])
        payment = self._moving(person, HOT, linked=True)
        return payment, self._moving(person, FEES, code=TransferCode.FEE)

    def _change_what_was_sent(self) -> tuple[Transfer, ...]:
        """A known id with other content, or the same in other company."""
        if not self._sent:
            return self._pay()
        random = self._random
        sent = random.choice(self._sent)
        amount: Any = sent.amount_minor
        changes: tuple[dict[str, Any], ...] = (
            {"amount_minor": amount + 1 if type(amount) is int else 7},
            {"amount_minor": float(amount) if type(amount) is int and amount < 2**53 else 7},
            {"reference": "changed"},
            {"linked": not sent.linked},
            {},
        )
        return (sent._replace(**random.choice(changes)),)

    def _absurd(self) -> tuple[Transfer, ...]:
        debit, credit = self._two_people()
        mode = self._random.choice((TransferMode.SINGLE_PHASE, TransferMode.PENDING))
        transfer = self._moving(debit, credit, mode=mode)
        changes = self._random.choice((*ABSURD, {"credit_account_id": debit.id}))
        return (transfer._replace(**changes),)

    def _some_accounts(self) -> tuple[NewAccount, ...]:
        random = self._random
        new = random.choice(PEOPLE)
        others = (
            new,
            replace(new, owner="somebody else"),
            replace(new, id=AccountId("nonsense")),
            replace(new, id=AccountId(self._id()), owner=""),
            replace(new, id=AccountId(self._id()), currency=CurrencyCode("e")),
            replace(new, debits_must_not_exceed_credits=False),
        )
        return (random.choice((new, new, *others)),)

    def _two_people(self) -> tuple[NewAccount, NewAccount]:
        random = self._random
        first = random.randrange(len(PEOPLE))
        # Two further on in the list is somebody else with the same currency.
        step = 2 * random.randint(1, 4) if random.random() < 0.97 else 1
        return PEOPLE[first], PEOPLE[(first + step) % len(PEOPLE)]

    def _moving(self, debit: NewAccount, credit: NewAccount, **other: Any) -> Transfer:
        content: dict[str, Any] = {
            "id": self._id(),
            "debit_account_id": debit.id,
            "credit_account_id": credit.id,
            "amount_minor": self._random.randint(1, 30),
            "currency": debit.currency,
            "code": TransferCode.PAYMENT,
            "reference": self._random.choice(("", "", "→ ☕", "$event")),
        }
        return Transfer(**{**content, **other})

    def _timeout(self, mode: TransferMode) -> int | None:
        return self._random.choice((None, 1, 30, 600)) if mode is TransferMode.PENDING else None

    def _id(self) -> TransferId:
        return TransferId(f"{self._random.getrandbits(128):032x}")
