"""A wallet with a past, and the address of every page that shows it."""

from __future__ import annotations

from collections.abc import Mapping

from appservices.vocabulary.ids import RoomId, UserId
from appservices.vocabulary.money import Money
from tests.web_stack import EUR, WebStack
from wallet_appservice.books.spending import Category, Spending
from wallet_appservice.payments.merchants.records import Merchant, Order, Scope
from wallet_appservice.payments.records import Authority
from wallet_appservice.payments.red_packet_records import PacketOrder, RedPacket
from wallet_appservice.payments.request_records import Request, RequestOrder

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
    shop, is_open, is_paid = await a_shop(stack, alice, customer=people["bob"])
    theirs = await stack.desk.merchants.open(owner=people["bob"], name="Bob’s bikes", by_operator=True)
    assert isinstance(theirs, Merchant)
    offered = await stack.desk.orders.create(
        theirs, reference="R-17", money=Money(4_500, EUR), description="New brakes"
    )
    assert isinstance(offered, Order)
    asked, asking, packet = await what_waits(stack, alice, people)
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
        "request": "/wallet/request",
        "split": "/wallet/split",
        "asked": f"/wallet/requests/{asked}",
        "asking": f"/wallet/requests/{asking}",
        "red-packet": "/wallet/red-packet",
        "red-packet-one": f"/wallet/red-packets/{packet}",
        "pending": "/wallet/pending",
        "settings": "/wallet/settings",
        "security": "/wallet/security",
        "code": "/wallet/code",
        "order": f"/wallet/order/{offered.id}",
        "merchants": "/wallet/merchant",
        "merchant": f"/wallet/merchant/{shop}",
        "merchant-order-new": f"/wallet/merchant/{shop}/orders/new",
        "merchant-order-open": f"/wallet/merchant/{shop}/orders/{is_open}",
        "merchant-order-paid": f"/wallet/merchant/{shop}/orders/{is_paid}",
        "merchant-keys": f"/wallet/merchant/{shop}/keys",
        "merchant-notifications": f"/wallet/merchant/{shop}/notifications",
        "missing": f"/wallet/history/{'0' * 32}",
    }


async def a_shop(stack: WebStack, owner: UserId, *, customer: UserId) -> tuple[str, str, str]:
    """A merchant with a key, an address, an open order and one that was paid and refunded in part."""
    desk = stack.desk
    shop = await desk.merchants.open(owner=owner, name="The Corner Café", by_operator=True)
    assert isinstance(shop, Merchant)
    await desk.keys.make(shop, name="The till", scopes=[Scope.ORDERS, Scope.CHARGES])
    await desk.endpoints.add(shop, "http://127.0.0.1:9/weft")
    ids = []
    for number, (description, amount_minor) in enumerate((("Flat white", 420), ("Cake for six", 2_400))):
        order = await desk.orders.create(
            shop, reference=f"T-{number}", money=Money(amount_minor, EUR), description=description
        )
        assert isinstance(order, Order)
        ids.append(order.id)
    await desk.orders.pay(ids[1], payer=customer)
    await desk.refunds.refund(shop, order_id=ids[1], refund_number="1", amount_minor=400, reason="One less")
    return shop.id, ids[0], ids[1]


async def what_waits(stack: WebStack, alice: UserId, people: Mapping[str, UserId]) -> tuple[str, str, str]:
    """A request to Alice, a split of hers that one has paid, and a red packet that one has opened."""
    dealings, bob, carol = stack.dealings, people["bob"], people["carol"]
    asked = await dealings.requests.ask(
        RequestOrder(
            id=stack.new_id(), requester=carol, people=(alice,), money=Money(1_850, EUR), memo="Cinema"
        )
    )
    asking = await dealings.requests.ask(
        RequestOrder(
            id=stack.new_id(),
            requester=alice,
            people=(alice, bob, carol, people["dora"]),
            money=Money(6_000, EUR),
            memo="Dinner at Luigi’s",
            is_split=True,
        )
    )
    assert isinstance(asked, Request) and isinstance(asking, Request)
    await dealings.requests.pay(bob, asking.id, authority=Authority.SESSION)
    room = RoomId("!party:weft.example")
    stack.members[room] = {alice, *people.values()}
    packet = await dealings.red_packets.fill(
        PacketOrder(
            id=stack.new_id(),
            sender=alice,
            room_id=room,
            money=Money(1_000, EUR),
            count=5,
            words="Happy new year!",
        )
    )
    assert isinstance(packet, RedPacket), packet
    await dealings.red_packets.open(bob, packet.id)
    await dealings.red_packets.open(people["erik"], packet.id)
    return asked.id, asking.id, packet.id
