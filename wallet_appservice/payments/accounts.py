"""The chart of accounts: which account is whose."""

from __future__ import annotations

from dataclasses import replace

from appservices.vocabulary.ids import ServerName, UserId
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.ledger.values import AccountKind, NewAccount, account_for

ISSUANCE_OWNER = "issuance"


def user_account(user: UserId, currency: CurrencyCode) -> NewAccount:
    """A person's account: it can't go below zero."""
    return account_for(AccountKind.USER, owner=user, currency=currency)


def issuance_account(currency: CurrencyCode) -> NewAccount:
    """Where a currency comes from and goes back to: minus its balance is what is in circulation."""
    return account_for(AccountKind.ISSUANCE, owner=ISSUANCE_OWNER, currency=currency)


def merchant_account(merchant_id: str, owner: UserId, currency: CurrencyCode) -> NewAccount:
    """A merchant's account, apart from its owner's own and from those of the owner's other merchants."""
    return account_for(AccountKind.MERCHANT, owner=owner, currency=currency, name=merchant_id)


def peer_account(server: ServerName, currency: CurrencyCode) -> NewAccount:
    """What another homeserver's wallet may still draw here: its credit, less what it owes us, or more what we
    owe it."""
    account = account_for(AccountKind.PEER, owner=server, currency=currency)
    return replace(account, debits_must_not_exceed_credits=True)
