"""The form that pays someone: what was typed, and the order it means or what is wrong with which field.

Pure: nothing is looked up. The form carries the payment's id from the first page to the last, so a double
tap, a resent form or a reload pays once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import unquote

from appservices.vocabulary.ids import ServerName, TransferId, UserId, is_ledger_id, is_user_id
from appservices.vocabulary.languages import _, isolated
from appservices.vocabulary.money import AmountUnreadable, Currencies
from wallet_appservice.payments.records import MEMO_LENGTH_MAX, Authority, PaymentOrder, clean_memo
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused

FIELD_LENGTH_MAX: Final = 300
_MATRIX_TO: Final = "https://matrix.to/#/"
_FIELD_OF_REFUSAL: Final = {
    PaymentRefusal.CURRENCY_UNKNOWN: "amount",
    PaymentRefusal.AMOUNT_INVALID: "amount",
    PaymentRefusal.AMOUNT_TOO_LARGE: "amount",
    PaymentRefusal.OWN_LIMIT: "amount",
    PaymentRefusal.DAY_LIMIT: "amount",
    PaymentRefusal.BALANCE_TOO_LOW: "amount",
    PaymentRefusal.MEMO_TOO_LONG: "memo",
    PaymentRefusal.PAYEE_INVALID: "payee",
    PaymentRefusal.PAYEE_IS_PAYER: "payee",
    PaymentRefusal.PAYEE_ELSEWHERE: "payee",
    PaymentRefusal.PAYEE_UNKNOWN: "payee",
}


@dataclass(frozen=True, slots=True)
class PaymentForm:
    """What was typed, as it was typed, with one sentence for each field that is wrong ("" is the whole)."""

    id: TransferId
    payee: str = ""
    amount: str = ""
    currency: str = ""
    memo: str = ""
    problems: Mapping[str, str] = field(default_factory=dict)

    def refused(self, refused: PaymentRefused, *, new_id: TransferId) -> PaymentForm:
        """The form after a refusal. The ledger may have spent its id, so the next try takes a new one."""
        if refused.refusal is PaymentRefusal.ID_TAKEN:
            sentence = _(
                "This form was sent before with other content, so nothing was paid now. "
                "Look at your recent payments before you pay again."
            )
        else:
            sentence = refused.sentence
        place = _FIELD_OF_REFUSAL.get(refused.refusal, "")
        return replace(self, id=new_id, problems={place: sentence})

    def failed(self, sentence: str) -> PaymentForm:
        """The form after no answer: its id stays, so that trying again can't pay twice."""
        return replace(self, problems={"": sentence})

    @property
    def first_wrong(self) -> str:
        """The field to go to first; "payee" when none is wrong."""
        return next((name for name in ("payee", "amount", "memo") if name in self.problems), "payee")


def read_form(fields: Mapping[str, Any], *, new_id: TransferId) -> PaymentForm:
    """What a browser sent. An id that is none is replaced."""
    id = _text(fields, "id")
    return PaymentForm(
        id=TransferId(id) if is_ledger_id(id) else new_id,
        payee=_text(fields, "payee"),
        amount=_text(fields, "amount"),
        currency=_text(fields, "currency"),
        memo=_text(fields, "memo"),
    )


def asked_form(asked: Mapping[str, Any], *, new_id: TransferId) -> PaymentForm:
    """What an address fills in, such as that of a scanned code. The payment's id is always a new
    one: whoever made the address must not choose it."""
    return replace(read_form(asked, new_id=new_id), id=new_id)


def order_of(
    form: PaymentForm, *, payer: UserId, server: ServerName, currencies: Currencies
) -> PaymentOrder | PaymentForm:
    """The order that the form means, or the form with what is wrong in it."""
    problems: dict[str, str] = {}
    payee = payee_of(form.payee, server)
    if payee is None:
        problems["payee"] = (
            _("A payee is a Matrix user, such as {example}, or {short} alone.").format(
                example=isolated(f"@bob:{server}"), short=isolated("bob")
            )
            if form.payee
            else _("Whom do you want to pay?")
        )
    elif payee == payer:
        problems["payee"] = _("You can't pay yourself.")
    memo = clean_memo(form.memo)
    if len(memo) > MEMO_LENGTH_MAX:
        problems["memo"] = _("A memo has {most} characters at most; this one has {count}.").format(
            most=MEMO_LENGTH_MAX, count=len(memo)
        )
    money = None
    if not form.amount:
        problems["amount"] = _("How much do you want to pay?")
    else:
        try:
            money = currencies.parse(_with_currency(form.amount, form.currency))
        except AmountUnreadable as error:
            problems["amount"] = str(error)
    if problems or payee is None or money is None:
        return replace(form, problems=problems)
    return PaymentOrder(
        id=form.id, payer=payer, payee=payee, money=money, memo=memo, authority=Authority.SESSION
    )


def payee_of(text: str, server: ServerName) -> UserId | None:
    """Whom somebody has typed: a user id, a name on this server, or a matrix.to link."""
    if text.startswith(_MATRIX_TO):
        text = unquote(text.removeprefix(_MATRIX_TO)).split("?")[0]
    if not text:
        return None
    if ":" not in text:
        # Phones begin a word with a capital; user ids made today have none.
        text = f"@{text.removeprefix('@').lower()}:{server}"
    elif not text.startswith("@"):
        text = f"@{text}"
    return UserId(text) if is_user_id(text) else None


def _with_currency(amount: str, currency: str) -> str:
    """The chosen currency counts unless one was typed with the amount."""
    typed_one = any(character.isalpha() or unicodedata.category(character) == "Sc" for character in amount)
    return amount if typed_one or not currency else f"{amount} {currency}"


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value.strip()[:FIELD_LENGTH_MAX] if isinstance(value, str) else ""
