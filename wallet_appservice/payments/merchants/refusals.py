"""Why a merchant's or a payer's wish is refused: a closed list, and one table of what each means outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from appservices.vocabulary.languages import _, known
from wallet_appservice.payments.refusals import Outside


class MerchantRefusal(StrEnum):
    """Why something of a merchant's was refused."""

    MERCHANT_UNKNOWN = "merchant_unknown"
    BY_OPERATOR = "by_operator"
    ID_TAKEN = "id_taken"
    NAME_INVALID = "name_invalid"
    TOO_MANY = "too_many"
    MERCHANT_CLOSED = "merchant_closed"
    ADDRESS_INVALID = "address_invalid"
    REFERENCE_TAKEN = "reference_taken"
    ORDER_UNKNOWN = "order_unknown"
    ORDER_PAID = "order_paid"
    ORDER_BEING_PAID = "order_being_paid"
    ORDER_CANCELLED = "order_cancelled"
    ORDER_EXPIRED = "order_expired"
    ORDER_BY_CODE = "order_by_code"
    CODE_UNKNOWN = "code_unknown"
    CODE_TRIES = "code_tries"
    ABOVE_CODE_LIMIT = "above_code_limit"
    REFUND_NUMBER_TAKEN = "refund_number_taken"
    NOT_PAID = "not_paid"
    REFUND_TOO_LATE = "refund_too_late"
    REFUND_PARTS = "refund_parts"
    REFUND_TOO_MUCH = "refund_too_much"
    REFUND_UNKNOWN = "refund_unknown"
    DELIVERY_UNKNOWN = "delivery_unknown"


MERCHANT_REFUSALS = {
    MerchantRefusal.MERCHANT_UNKNOWN: Outside(
        404, "M_NOT_FOUND", known("There is no such merchant of yours.")
    ),
    MerchantRefusal.BY_OPERATOR: Outside(
        403, "M_FORBIDDEN", known("On this server the operator opens merchant accounts; please ask them.")
    ),
    MerchantRefusal.ID_TAKEN: Outside(
        409, "DEV_WEFT_ID_TAKEN", known("This id was used for something else already; nothing was changed.")
    ),
    MerchantRefusal.NAME_INVALID: Outside(
        400, "M_INVALID_PARAM", known("A name is one line of 1 to {length_max} characters.")
    ),
    MerchantRefusal.TOO_MANY: Outside(
        400,
        "DEV_WEFT_TOO_MANY",
        known("There are {count_max} of these already, which is the most there can be."),
    ),
    MerchantRefusal.MERCHANT_CLOSED: Outside(
        403, "DEV_WEFT_MERCHANT_CLOSED", known("{merchant} is closed and takes no more money.")
    ),
    MerchantRefusal.ADDRESS_INVALID: Outside(400, "DEV_WEFT_ADDRESS_INVALID", "{problem}"),
    MerchantRefusal.REFERENCE_TAKEN: Outside(
        409,
        "DEV_WEFT_REFERENCE_TAKEN",
        known("The reference “{reference}” was used for another order already; nothing was changed."),
    ),
    MerchantRefusal.ORDER_UNKNOWN: Outside(404, "M_NOT_FOUND", known("There is no such order.")),
    MerchantRefusal.ORDER_PAID: Outside(409, "DEV_WEFT_ORDER_PAID", known("This order is paid already.")),
    MerchantRefusal.ORDER_BEING_PAID: Outside(
        409, "DEV_WEFT_ORDER_BEING_PAID", known("This order is being paid at this moment.")
    ),
    MerchantRefusal.ORDER_CANCELLED: Outside(
        409, "DEV_WEFT_ORDER_CANCELLED", known("The merchant has cancelled this order.")
    ),
    MerchantRefusal.ORDER_EXPIRED: Outside(
        409,
        "DEV_WEFT_ORDER_EXPIRED",
        known("The time to pay this order is over; ask the merchant for a new one."),
    ),
    MerchantRefusal.ORDER_BY_CODE: Outside(
        409, "DEV_WEFT_ORDER_BY_CODE", known("This is charged by payment codes alone.")
    ),
    MerchantRefusal.CODE_UNKNOWN: Outside(
        404,
        "DEV_WEFT_CODE_UNKNOWN",
        known("This payment code can't be used (any more); the customer's page shows a new one each minute."),
    ),
    MerchantRefusal.CODE_TRIES: Outside(
        429, "M_LIMIT_EXCEEDED", known("Too many payment codes were wrong; try again in a minute.")
    ),
    MerchantRefusal.ABOVE_CODE_LIMIT: Outside(
        403,
        "DEV_WEFT_ABOVE_CODE_LIMIT",
        known("By payment code at most {code_max} can be charged; make an order that the customer pays."),
    ),
    MerchantRefusal.REFUND_NUMBER_TAKEN: Outside(
        409,
        "DEV_WEFT_REFUND_NUMBER_TAKEN",
        known(
            "The refund number “{refund_number}” was used for another refund already; nothing was changed."
        ),
    ),
    MerchantRefusal.NOT_PAID: Outside(
        409, "DEV_WEFT_NOT_PAID", known("This order isn't paid, so nothing of it can be given back.")
    ),
    MerchantRefusal.REFUND_TOO_LATE: Outside(
        409, "DEV_WEFT_REFUND_TOO_LATE", known("A payment can be refunded within {days_max} days.")
    ),
    MerchantRefusal.REFUND_PARTS: Outside(
        409, "DEV_WEFT_REFUND_PARTS", known("A payment can be refunded in {parts_max} parts at most.")
    ),
    MerchantRefusal.REFUND_TOO_MUCH: Outside(
        409, "DEV_WEFT_REFUND_TOO_MUCH", known("Of this payment {left} are left to be refunded.")
    ),
    MerchantRefusal.REFUND_UNKNOWN: Outside(404, "M_NOT_FOUND", known("There is no such refund.")),
    MerchantRefusal.DELIVERY_UNKNOWN: Outside(404, "M_NOT_FOUND", known("There is no such notification.")),
}


@dataclass(frozen=True, slots=True)
class MerchantRefused:
    """A refusal, and what its sentence speaks of."""

    refusal: MerchantRefusal
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """In the language that is spoken when it is read."""
        return _(MERCHANT_REFUSALS[self.refusal].sentence).format_map(self.words)

    @classmethod
    def because(cls, refusal: MerchantRefusal, **words: str) -> MerchantRefused:
        return cls(refusal, words)
