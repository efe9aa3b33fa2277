"""A wallet with a past, and the address of every page that shows it."""

from __future__ import annotations

from appservices.vocabulary.ids import UserId
from tests.web_stack import WebStack
from wallet_appservice.books.spending import Category, Spending

_MEMOS = (
    ("bob", 1_250, "lunch", Category.FOOD),
    ("carol", 4_200, "Concert tickets", Category.FUN),
    ("dora", 32_500, "Rent, our half", Category.HOME),
    ("bob", 890, "bus " * 40, Category.TRANSPORT),
    ("erik", 2_399, "Kaffeebohnen, zwei Kilo", Category.FOOD),
    ("carol", 1_500, "غداء مع سارة", None),
)


async def a_full_wallet(stack: WebStack) -> tuple[UserId, dict[str, str]]:
    """Somebody who has used everything, and what there is to see: name → path."""
    alice = stack.user("alice")
    people = {name: stack.user(name) for name in ("bob", "carol", "dora", "erik")}
    spending = Spending(stack.payments.till.database)
    await stack.deposit(alice, 100_000)
    await stack.deposit(people["bob"], 50_000)
    paid = None
    for name, amount_minor, memo, category in _MEMOS:
        paid = await stack.pay(alice, people[name], amount_minor, memo=memo)
        await spending.choose(alice, paid.id, category)
    for number in range(8):
        await stack.pay(people["bob"], alice, 437 + number, memo="coffee")
    await stack.hold(alice, people["bob"], 1_000)
    assert paid is not None
    return alice, {
        "overview": "/wallet",
        "send": "/wallet/send",
        "history": "/wallet/history",
        "history-none": "/wallet/history?words=nothing+fits",
        "payment": f"/wallet/history/{paid.id}",
        "statement": "/wallet/statement",
        "statement-wrong": "/wallet/statement?first=2026-02-30&last=2026-01-01",
        "spending": "/wallet/spending",
        "spending-empty": "/wallet/spending?currency=HOUR",
        "receive": "/wallet/receive",
        "receive-amount": "/wallet/receive?amount=12.50&currency=EUR&memo=lunch",
        "scan": "/wallet/scan",
        "scan-wrong": "/wallet/scan?text=https%3A%2F%2Felsewhere.example%2F",
        "more": "/wallet/more",
        "missing": f"/wallet/history/{'0' * 32}",
    }
