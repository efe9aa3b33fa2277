"""What notifications promise: signed, at least once, tried for a day, replayable, with a real receiver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from appservices.vocabulary.ids import derived_id
from tests.merchant_world import ALICE, MerchantWorld, merchant_world
from tests.webhook_receiver import WebhookReceiver, webhook_receiver
from wallet_appservice.payments.merchants.endpoints import Delivery
from wallet_appservice.payments.merchants.notifications import (
    LEASE_SECONDS,
    PAUSES_SECONDS,
    signed_headers,
)
from wallet_appservice.payments.merchants.orders import EXPIRY_SECONDS_DEFAULT
from wallet_appservice.payments.merchants.records import Merchant, Order
from wallet_appservice.payments.merchants.refunds import Refund
from wallet_appservice.payments.merchants.refusals import MerchantRefused


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[MerchantWorld]:
    async with merchant_world(tmp_path) as world:
        yield world


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as receiver:
        yield receiver


async def told(world: MerchantWorld, url: str) -> tuple[Merchant, str]:
    """A merchant that is notified at the URL, and the secret."""
    merchant = await world.merchant()
    added = await world.desk.endpoints.add(merchant, url)
    assert not isinstance(added, MerchantRefused), added
    fresh = await world.desk.merchants.find(merchant.id)
    assert fresh is not None
    return fresh, added[1]


async def only_delivery(world: MerchantWorld, merchant: Merchant) -> Delivery:
    (delivery,) = await world.desk.endpoints.deliveries(merchant, limit=10)
    return delivery


async def test_each_event_is_told_in_a_message_that_its_receiver_verifies(
    world: MerchantWorld, receiver: WebhookReceiver
) -> None:
    merchant, secret = await told(world, receiver.url)
    paid = await world.paid_order(merchant)
    cancelled = await world.order(merchant, "1002")
    await world.desk.orders.cancel(merchant, cancelled.id)
    refund = await world.desk.refunds.refund(
        merchant, order_id=paid.id, refund_number="r1", amount_minor=50, reason="stale"
    )
    assert isinstance(refund, Refund), refund
    code = await world.desk.codes.issue(ALICE)
    await world.desk.charges.charge(merchant, code=code.code, money=refund.money, reference="till-1")
    while await world.desk.notifier.deliver_due():
        pass
    by_type = {content["type"]: content["data"] for content in receiver.verified(secret)}
    assert set(by_type) == {"order.paid", "order.cancelled", "refund.made", "charge.paid"}
    assert by_type["order.paid"]["id"] == paid.id
    assert by_type["order.paid"]["payment_id"] == paid.payment_id
    assert by_type["refund.made"]["amount_minor"] == "50"
    assert by_type["charge.paid"]["reference"] == "till-1"


async def test_an_expired_order_is_told_of(world: MerchantWorld, receiver: WebhookReceiver) -> None:
    merchant, _secret = await told(world, receiver.url)
    await world.order(merchant)
    world.clock.ahead_ms += EXPIRY_SECONDS_DEFAULT * 1000 + 1
    await world.desk.sweep()
    assert (await only_delivery(world, merchant)).event == "order.expired"


def test_the_signature_is_that_of_the_standard() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", body, secret=secret, now_ms=1_614_265_330_000)
    # The example of the Standard Webhooks specification.
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert Webhook(secret) is not None


async def test_what_was_not_taken_is_tried_again_with_growing_pauses_for_a_day(
    world: MerchantWorld, receiver: WebhookReceiver
) -> None:
    receiver.statuses = [500]
    merchant, _secret = await told(world, receiver.url)
    await world.paid_order(merchant)
    begun_ms = world.clock()
    assert await world.desk.notifier.deliver_due() == 1
    for pause_seconds in PAUSES_SECONDS:
        assert await world.desk.notifier.deliver_due() == 0
        world.clock.ahead_ms += pause_seconds * 1000 + 1000
        assert await world.desk.notifier.deliver_due() == 1
    delivery = await only_delivery(world, merchant)
    assert (delivery.state, delivery.attempts) == ("failed", len(PAUSES_SECONDS) + 1)
    assert delivery.problem == "it answered 500"
    assert 23 * 3_600_000 < world.clock() - begun_ms < 25 * 3_600_000
    assert list(PAUSES_SECONDS) == sorted(PAUSES_SECONDS)
    assert len({headers["webhook-id"] for headers, _body in receiver.came}) == 1


async def test_a_notification_is_replayed_as_it_was(world: MerchantWorld, receiver: WebhookReceiver) -> None:
    merchant, _secret = await told(world, receiver.url)
    await world.paid_order(merchant)
    await world.desk.notifier.deliver_due()
    delivered = await only_delivery(world, merchant)
    assert delivered.state == "delivered"
    assert await world.desk.notifier.deliver_due() == 0
    replayed = await world.desk.endpoints.replay(merchant, delivered.id)
    assert isinstance(replayed, Delivery)
    assert await world.desk.notifier.deliver_due() == 1
    (first, first_body), (second, second_body) = receiver.came
    assert first_body == second_body
    assert first["webhook-id"] == second["webhook-id"] == delivered.event_id
    other = await world.merchant("Florist")
    assert isinstance(await world.desk.endpoints.replay(other, delivered.id), MerchantRefused)


async def test_a_receiver_that_is_gone_is_told_nothing_more(
    world: MerchantWorld, receiver: WebhookReceiver
) -> None:
    receiver.statuses = [410]
    merchant, _secret = await told(world, receiver.url)
    await world.paid_order(merchant)
    await world.desk.notifier.deliver_due()
    assert (await only_delivery(world, merchant)).state == "failed"
    (endpoint,) = await world.desk.endpoints.of_merchant(merchant)
    assert endpoint.disabled_at_ms is not None
    await world.paid_order(merchant, "1002")
    assert len(await world.desk.endpoints.deliveries(merchant, limit=10)) == 1


async def test_a_redirect_is_not_followed(world: MerchantWorld, receiver: WebhookReceiver) -> None:
    receiver.statuses = [302, 204]
    merchant, _secret = await told(world, receiver.url)
    await world.paid_order(merchant)
    await world.desk.notifier.deliver_due()
    assert len(receiver.came) == 1
    assert (await only_delivery(world, merchant)).problem == "it answered 302"


async def test_a_receiver_that_does_not_answer_in_time_is_tried_again(
    world: MerchantWorld, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wallet_appservice.payments.merchants.notifications.TIMEOUT_SECONDS", 0.2)
    receiver.pause_seconds = 1.0
    merchant, _secret = await told(world, receiver.url)
    await world.paid_order(merchant)
    await world.desk.notifier.deliver_due()
    delivery = await only_delivery(world, merchant)
    assert (delivery.state, delivery.problem) == ("waiting", "no answer within 0.2 seconds")


async def test_a_delivery_whose_sender_died_is_taken_up_by_another(
    world: MerchantWorld, receiver: WebhookReceiver
) -> None:
    merchant, _secret = await told(world, receiver.url)
    await world.paid_order(merchant)
    (due,) = await world.desk.notifier._due()
    assert await world.desk.notifier._claim(due)
    assert not await world.desk.notifier._claim(due)
    assert await world.desk.notifier.deliver_due() == 0
    world.clock.ahead_ms += LEASE_SECONDS * 1000 + 1
    assert await world.desk.notifier.deliver_due() == 1
    assert (await only_delivery(world, merchant)).state == "delivered"


async def test_private_addresses_are_told_nothing_unless_the_operator_allows_it(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    async with merchant_world(tmp_path, private_allowed=False, resolve=resolve) as world:
        merchant = await world.merchant()
        refused = await world.desk.endpoints.add(merchant, receiver.url)
        assert isinstance(refused, MerchantRefused)
        merchant, _secret = await told(world, "https://shop.example/hook")
        await world.paid_order(merchant)
        await world.desk.notifier.deliver_due()
        delivery = await only_delivery(world, merchant)
        assert (
            delivery.problem == "shop.example is a private address, and notifications are not sent to those."
        )
        assert receiver.came == []


async def test_one_event_is_told_once_however_often_its_order_is_asked_to_be_paid(
    world: MerchantWorld, receiver: WebhookReceiver
) -> None:
    merchant, _secret = await told(world, receiver.url)
    order = await world.order(merchant)
    answers = await asyncio.gather(*(world.desk.orders.pay(order.id, payer=ALICE) for _ in range(5)))
    assert all(isinstance(answer, Order) for answer in answers)
    delivery = await only_delivery(world, merchant)
    assert delivery.event_id == derived_id("merchant event", "order.paid", order.id)


async def test_the_loop_delivers_soon_after_it_was_woken(
    world: MerchantWorld, receiver: WebhookReceiver
) -> None:
    merchant, secret = await told(world, receiver.url)
    running = asyncio.create_task(world.desk.notifier.run())
    await asyncio.sleep(0.05)
    await world.paid_order(merchant)
    await receiver.wait_for(1)
    assert receiver.verified(secret)[0]["type"] == "order.paid"
    running.cancel()
    await asyncio.wait({running})
