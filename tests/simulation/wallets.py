"""Several wallets, each with its real ledger, clearing and links, on a network that loses, repeats and
reorders, one of them hostile, while processes die and clocks jump. One seed, one course of events.

A hostile member runs the real wallet too, so that its lies come well signed and in the middle of true ones:
it asks for what may not be, contradicts its own answers, forges, replays and changes messages. Whatever it
does, in the end

- nothing is under way between honest members, and each order of theirs ended once and alike on both sides;
- their books are mirror images, their statements agree, and no link between them has stopped by itself;
- what an honest member's people have is what was paid in and what its peers owe it, to the cent;
- no peer owes more than its credit limit, but for what it says itself that it was paid outside.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import combinations, permutations
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch

from nacl.signing import SigningKey as NaclSigningKey
from sqlalchemy import select

from appservices.chassis.links.storage import MEND, STOPPED, item_write, wish_write
from appservices.vocabulary.ids import ServerName, TransferId, UserId, derived_id
from appservices.vocabulary.money import Money
from appservices.vocabulary.signing import SigningKey, sign_json
from tests.clearing_wallets import EUR, PEOPLE, Network, Wallet
from tests.link_channel import Weather
from tests.simulation.clockwork import run_simulated
from tests.simulation.faults import Fault, FaultKind, FaultyDriver, ProcessDied
from tests.simulation.process import Problem
from wallet_appservice.clearing import peers as peers_module
from wallet_appservice.clearing.paying import FULFILLED, PREPARED, REJECTED
from wallet_appservice.clearing.statements import Statements
from wallet_appservice.payments.records import Authority, PaymentOrder, PaymentRecord, PaymentState
from wallet_appservice.storage.clearing_tables import clearing_in, clearing_out, settlements
from wallet_appservice.storage.ledger_check import verify

STEPS: Final = 30
WALLETS_MIN: Final = 2
WALLETS_MAX: Final = 6
START_MS: Final = 1_795_305_600_000
LIMIT_MINOR: Final = 3_000
DEPOSIT_MINOR: Final = 10_000
STATEMENTS_MAX: Final = 60
"""A death is armed for one of so many statements."""
PAUSE_SECONDS_MAX: Final = 8.0
QUIET_SECONDS_MAX: Final = 3_600.0
"""Of simulated time, within which everything must have ended once nothing goes wrong any more."""
CLOCKS_MS: Final = (0, 0, 0, -2_000, 2_000, -120_000, 240_000, -3_600_000, 3_600_000)
"""What a clock may jump to, from the true time."""
SAID_MAX: Final = 200
"""Messages that a hostile member remembers, to replay and change them."""
_OF_MENDING: Final = ("peer_began_anew", "stopped_by_peer")
_FIELDS: Final = ("seq", "ack", "epoch", "sent", "prev", "items", "to", "stopped", "resend_from")


class WalletsFailed(Exception):
    """Wallets did what they must not do; says what, at which step of which seed."""

    def __init__(self, *, seed: int, wallets: int, step: int, problem: str) -> None:
        self.command = f"scripts/simulate --wallets {wallets} --seed {seed} --steps {step}"
        super().__init__(f"{problem}\nRepeat it by: {self.command}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a course of events came to. Equal for the same seed."""

    digest: str
    orders: int
    posted: int
    messages: int
    deaths: int
    lies: int
    stops: int
    """Links that were found stopped, and mended."""


def simulate_wallets(seed: int, *, wallets: int, folder: Path, steps: int = STEPS) -> Outcome:
    """One course of events. Raises WalletsFailed."""
    simulation = WalletSimulation(seed, wallets=wallets, folder=folder)
    with _quick_and_quiet():
        try:
            return run_simulated(lambda: simulation.run(steps))
        except Exception as error:
            problem = str(error) if isinstance(error, Problem) else repr(error)
            raise WalletsFailed(seed=seed, wallets=wallets, step=simulation.step, problem=problem) from (
                None if isinstance(error, Problem) else error
            )


class Member(Wallet):
    """A wallet whose process can die at any statement, and whose clock can jump."""

    def __init__(self, server: str, folder: Path, network: Network, seed: int) -> None:
        self.jumped_ms = 0
        self.driver: FaultyDriver
        super().__init__(server, folder, network, clock=self._now_ms)
        self.key = SigningKey("k1", NaclSigningKey(hashlib.sha256(f"{seed} {server}".encode()).digest()))

    def _now_ms(self) -> int:
        return START_MS + self.jumped_ms + int(asyncio.get_running_loop().time() * 1000)

    def opened(self) -> None:
        self.driver = FaultyDriver(self.database)

    @property
    def is_dead(self) -> bool:
        return self.driver.is_dead

    async def stop(self) -> None:
        if self.is_dead:
            self.driver.hang_up()
        with suppress(ProcessDied, Exception):
            await super().stop()

    async def restart(self) -> None:
        await self.stop()
        await self.start()


@dataclass
class Streets(Network):
    """The network between members; a dead one neither speaks nor hears."""

    members: dict[str, Member] = field(default_factory=dict)
    said: list[tuple[UserId, UserId, dict[str, Any]]] = field(default_factory=list)
    count: int = 0

    def carry(self, sender: UserId, to: UserId, content: dict[str, Any]) -> None:
        if self.members[_server(sender)].is_dead:
            return
        self.count += 1
        self.said = [*self.said[-SAID_MAX:], (sender, to, content)]
        super().carry(sender, to, content)
        self.carried.clear()

    async def _deliver(self, sender: UserId, to: UserId, content: dict[str, Any], delay: float) -> None:
        await asyncio.sleep(delay)
        member = self.members[_server(to)]
        if not member.is_dead:
            # What is lost with a dying process comes again, as any message does.
            with suppress(ProcessDied, Exception):
                await member.hear(sender, content)


class WalletSimulation:
    """Members `a`, `b`, …; with more than two the last one is hostile, in most courses of events."""

    def __init__(self, seed: int, *, wallets: int, folder: Path) -> None:
        self._random = Random(seed)
        self._streets = Streets(Weather(seed=seed + 1))
        names = "abcdef"[:wallets]
        self._members = [Member(name, folder, self._streets, seed) for name in names]
        self._streets.members = {member.server: member for member in self._members}
        hostile = wallets > 2 and self._random.random() < 0.8
        self._hostile = self._members[-1] if hostile else None
        self._honest = [member for member in self._members if member is not self._hostile]
        self._orders: list[tuple[Member, PaymentOrder]] = []
        self._asking: dict[asyncio.Task[Any], None] = {}
        self._mended: set[frozenset[ServerName]] = set()
        """Pairs whose link has begun anew."""
        self.step = 0
        self._deaths = self._lies = self._stops = 0

    async def run(self, steps: int) -> Outcome:
        try:
            await self._begin()
            for self.step in range(1, steps + 1):
                await self._take_step()
            await self._become_quiet()
            posted = await self._ask_again()
            await self._check()
            digest = await self._digest()
        finally:
            for task in (*self._asking, *self._streets.deliveries):
                task.cancel()
            await asyncio.gather(*self._asking, *self._streets.deliveries, return_exceptions=True)
            for member in self._members:
                await member.stop()
        return Outcome(
            digest, len(self._orders), posted, self._streets.count, self._deaths, self._lies, self._stops
        )

    async def _begin(self) -> None:
        for member in self._members:
            await member.start()
            for other in self._members:
                if other is not member:
                    await member.peers.add(other.server, {EUR: LIMIT_MINOR})
            for name in PEOPLE[:2]:
                await member.payments.deposit(
                    user=member.user(name),
                    money=Money(DEPOSIT_MINOR, EUR),
                    id=TransferId(derived_id("deposit", member.server, name)),
                )

    async def _take_step(self) -> None:
        random = self._random
        self._change_weather()
        victim = random.choice(self._members)
        if random.random() < 0.2:
            fault = Fault(FaultKind.DEATH, random.randint(1, STATEMENTS_MAX), after=random.random() < 0.5)
            victim.driver.arm(fault)
        for _ in range(random.randint(0, 5)):
            self._order()
        if self._hostile is not None and random.random() < 0.7:
            await self._lie(self._hostile)
        await asyncio.sleep(random.random() * PAUSE_SECONDS_MAX)
        if random.random() < 0.3:
            # A clock that jumps mostly does so with its machine.
            victim.jumped_ms = random.choice(CLOCKS_MS)
            if random.random() < 0.7:
                await victim.restart()
        await self._replace_the_dead()
        for member in self._members:
            if random.random() < 0.3:
                with suppress(ProcessDied, Exception):
                    await _look_after(member)
        self._look_at_honest_links()
        if random.random() < 0.3:
            await self._mend()

    def _change_weather(self) -> None:
        random, weather = self._random, self._streets.weather
        if random.random() < 0.3:
            weather.lost = random.choice((0.0, 0.1, 0.4))
            weather.repeated = random.choice((0.0, 0.2, 0.6))
            weather.delay_seconds_max = random.choice((0.05, 1.0, 20.0))
            weather.is_cut = random.random() < 0.15

    def _order(self) -> None:
        random = self._random
        payer, payee = random.sample(self._members, 2)
        name = random.choice((*PEOPLE, "nobody"))
        order = PaymentOrder(
            id=TransferId(derived_id("order", str(len(self._orders)))),
            payer=payer.user(random.choice(PEOPLE[:2])),
            payee=payee.user(name),
            money=Money(random.choice((1, 7, 250, 900)), EUR),
            authority=Authority.SESSION,
        )
        self._orders.append((payer, order))
        self._ask(payer, order)
        if random.random() < 0.1:
            self._ask(*random.choice(self._orders))

    def _ask(self, payer: Member, order: PaymentOrder) -> None:
        task = asyncio.create_task(payer.payments.pay(order))
        self._asking[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        """Who got no answer, or none that can be, asks again in the end."""
        self._asking.pop(task, None)
        if not task.cancelled():
            task.exception()

    async def _replace_the_dead(self) -> None:
        for member in self._members:
            if member.is_dead:
                self._deaths += 1
                await asyncio.sleep(self._random.random() * 2)
                await member.restart()
            else:
                member.driver.arm(None)

    # What hostile members do.

    async def _lie(self, liar: Member) -> None:
        random = self._random
        victim = random.choice(self._honest)
        for _ in range(random.randint(1, 4)):
            self._lies += 1
            share = random.random()
            if share < 0.7:
                with suppress(ProcessDied, Exception):
                    await _inject(liar, victim, _absurd_item(random, liar, victim, self._orders))
            else:
                self._misuse_a_message(liar, victim)

    def _misuse_a_message(self, liar: Member, victim: Member) -> None:
        """Replays, changes or forges what was said; whoever it was from, the homeserver says who sends it."""
        random = self._random
        if not self._streets.said:
            return
        _sender, _to, content = random.choice(self._streets.said)
        changed = json.loads(json.dumps(content))
        share = random.random()
        if share > 0.4:
            changed[random.choice(_FIELDS)] = random.choice(
                (0, 1, -1, 2**53, True, None, "", "[/]", [], [{"kind": "gift"}], victim.user_id, "0" * 64)
            )
            if share > 0.6:
                changed.pop("signatures", None)
                with suppress(Exception):
                    changed = sign_json(changed, signer=liar.user_id, key=liar.key)
        Network.carry(self._streets, liar.user_id, victim.user_id, changed)
        self._streets.carried.clear()

    # What operators do.

    async def _mend(self) -> None:
        """Both operators of a link that has stopped let it begin anew; now and then of one that works."""
        pairs = [pair for pair in combinations(self._members, 2) if self._has_stopped(*pair)]
        self._stops += len(pairs)
        if self._random.random() < 0.2:
            pairs.append((self._honest[0], self._honest[1]))
        for pair in pairs:
            self._mended.add(frozenset(member.server for member in pair))
            for one, other in (pair, pair[::-1]):
                with suppress(ProcessDied, Exception):
                    await one.switchboard.storage.write([wish_write(other.user_id, MEND)])

    async def _mend_honest(self) -> None:
        for one, other in permutations(self._honest, 2):
            if self._has_stopped(one, other):
                await one.switchboard.storage.write([wish_write(other.user_id, MEND)])

    def _has_stopped(self, one: Member, other: Member) -> bool:
        return STOPPED in (_link_state(one, other), _link_state(other, one))

    def _look_at_honest_links(self) -> None:
        for one in self._honest:
            for other in self._honest:
                if one is not other and _link_state(one, other) == STOPPED:
                    link = one.switchboard.known(other.user_id)
                    assert link is not None
                    # Of two who begin anew, one is the first, and the other one is surprised.
                    is_mended = frozenset((one.server, other.server)) in self._mended
                    if is_mended and link.state.reason in _OF_MENDING:
                        continue
                    raise Problem(
                        f"the link of {one.server} with {other.server}, both honest, has stopped: "
                        f"{link.state.reason}: {link.state.detail}"
                    )

    # The end.

    async def _become_quiet(self) -> None:
        weather = self._streets.weather
        weather.lost = weather.repeated = 0.0
        weather.delay_seconds_max, weather.is_cut = 0.05, False
        await self._replace_the_dead()
        deadline = asyncio.get_running_loop().time() + QUIET_SECONDS_MAX
        while self._asking or await self._under_way():
            if asyncio.get_running_loop().time() > deadline:
                raise Problem(f"still under way after an hour: {await self._under_way()}")
            await asyncio.sleep(20)
            await self._mend_honest()
            for member in self._honest:
                await _look_after(member)
            self._look_at_honest_links()

    async def _under_way(self) -> list[str]:
        found = []
        for member in self._honest:
            others = [other.server for other in self._honest if other is not member]
            query = select(clearing_out.c.id).where(
                clearing_out.c.state == PREPARED, clearing_out.c.server.in_(others)
            )
            async with member.database.read() as work:
                found += [f"{member.server} {id}" for id in (await work.execute(query)).scalars()]
        return found

    async def _ask_again(self) -> int:
        """Each order of honest people's to honest ones gets its one answer; returns how many were paid."""
        posted = 0
        honest = {str(member.server): member for member in self._honest}
        for payer, order in self._orders:
            payee = honest.get(_server(order.payee))
            if payer is self._hostile or payee is None:
                continue
            outcome = await payer.payments.pay(order)
            if not isinstance(outcome, PaymentRecord):
                continue
            record = await payer.paying.ended(outcome, seconds_max=600)
            if record.state not in (PaymentState.POSTED, PaymentState.RETURNED):
                raise Problem(f"order {order.id} is {record.state} in the end")
            answer = await _answer_of(payee, payer.server, order.id)
            is_paid = record.state is PaymentState.POSTED
            # What was only inquired about has no amount there.
            if answer is None or answer[0] != (FULFILLED if is_paid else REJECTED):
                raise Problem(f"order {order.id} is {record.state} at its payer's, {answer} at its payee's")
            if is_paid and answer[1] != order.money.amount_minor:
                raise Problem(f"order {order.id} was paid in another amount: {answer[1]}")
            posted += is_paid
        return posted

    async def _check(self) -> None:
        self._look_at_honest_links()
        for member in self._honest:
            found = await verify(member.database)
            if not found.is_right:
                raise Problem(f"the ledger of {member.server} does not verify: {found}")
            await self._check_sum(member)
            for other in self._members:
                if other is not member:
                    await self._check_pair(member, other)

    async def _check_sum(self, member: Member) -> None:
        """People have what was paid in and what peers owe; a settlement is paid outside."""
        people_minor = await member.people_minor()
        owed_minor = sum([item.owed_minor for item in await member.peers.positions()])
        settled_minor = sum([await _settled_minor(member, other.server) for other in self._members])
        expected = 2 * DEPOSIT_MINOR + owed_minor - settled_minor
        if people_minor != expected:
            raise Problem(f"people of {member.server} have {people_minor}, not {expected}")

    async def _check_pair(self, member: Member, other: Member) -> None:
        owed_minor = await member.owed_minor(other.server)
        settled_minor = await _settled_minor(member, other.server)
        if owed_minor - settled_minor > LIMIT_MINOR:
            raise Problem(f"{other.server} owes {member.server} {owed_minor}, above its limit")
        if other is self._hostile:
            return
        theirs_minor = await other.owed_minor(member.server)
        if owed_minor != -theirs_minor:
            raise Problem(f"{other.server} owes {member.server} {owed_minor}, and says {-theirs_minor}")
        await self._check_statement(member, other)

    async def _check_statement(self, member: Member, other: Member) -> None:
        period = {"from_ms": 0, "to_ms": 2**52}
        ours = await Statements(member.database).of(other.server, EUR, **period)
        theirs = await Statements(other.database).of(member.server, EUR, **period)
        if ours is None or theirs is None or (ours.paid, ours.received) != (theirs.received, theirs.paid):
            raise Problem(f"statements of {member.server} and {other.server} differ: {ours}, {theirs}")

    async def _digest(self) -> str:
        digest = hashlib.sha256()
        for member in self._honest:
            for table in (clearing_out, clearing_in):
                query = select(table).order_by(table.c.id)
                async with member.database.read() as work:
                    for row in await work.execute(query):
                        digest.update(repr(tuple(row)).encode())
        return digest.hexdigest()


async def _inject(liar: Member, victim: Member, item: dict[str, Any]) -> None:
    """The item goes well signed and numbered, among what the liar's wallet has to say."""
    await liar.switchboard.link(victim.user_id)
    await liar.switchboard.storage.write([item_write(victim.user_id, item)])
    liar.switchboard.wake(victim.user_id)


def _absurd_item(
    random: Random, liar: Member, victim: Member, orders: Sequence[tuple[Member, PaymentOrder]]
) -> dict[str, Any]:
    """Something that may be, may not be, or contradicts what was said."""
    known = random.choice(orders)[1].id if orders and random.random() < 0.7 else ""
    id = known or derived_id("lie", str(random.randint(1, 20)))
    prepare = {
        "kind": "prepare",
        "id": id,
        "payer": random.choice((liar.user("mallory"), liar.user("alice"), victim.user("alice"), "@x:y")),
        "payee": random.choice((victim.user("alice"), victim.user("bob"), victim.user("nobody"))),
        "amount_minor": random.choice(("1", "900", "2999", "3001", "100001", str(10**15))),
        "currency": random.choice(("EUR", "EUR", "EUR", "JPY", "XAU")),
        "expires_at_ms": victim.clock() + random.choice((-1, 1_000, 300_000, 10**12)),
    }
    return random.choice(
        (
            prepare,
            prepare,
            prepare,
            {"kind": "fulfill", "id": id},
            {"kind": "reject", "id": id, "reason": "over_limit"},
            {"kind": "inquire", "id": id},
            {"kind": "settle", "id": id, "amount_minor": "500", "currency": "EUR", "reference": "a lie"},
            {
                "kind": "statement",
                "currency": "EUR",
                "from_ms": 0,
                "to_ms": 2**52,
                "paid": {"count": 1, "sum_minor": "1", "hash": "0" * 64},
                "received": {"count": 0, "sum_minor": "0", "hash": "0" * 64},
            },
            {**prepare, "amount_minor": random.choice((1, 1e3, "-1", "NaN", None))}
            if random.random() < 0.2
            else prepare,
        )
    )


async def _look_after(member: Member) -> None:
    for chore in member.upkeep.chores.values():
        await chore()


def _link_state(one: Member, other: Member) -> str | None:
    link = None if one.is_dead else one.switchboard.known(other.user_id)
    return None if link is None else link.state.state


async def _answer_of(payee: Member, server: ServerName, id: TransferId) -> tuple[str, int] | None:
    query = select(clearing_in.c.answer, clearing_in.c.amount_minor).where(
        clearing_in.c.server == server, clearing_in.c.id == id
    )
    async with payee.database.read() as work:
        row = (await work.execute(query)).first()
    return None if row is None else (row.answer, row.amount_minor)


async def _settled_minor(member: Member, server: str) -> int:
    """What the peer says that it was paid outside, which it therefore owes us more."""
    query = select(settlements.c.direction, settlements.c.amount_minor).where(settlements.c.server == server)
    async with member.database.read() as work:
        rows = (await work.execute(query)).all()
    return sum([row.amount_minor if row.direction == "out" else -row.amount_minor for row in rows])


def _server(user: UserId) -> str:
    return user.split(":", 1)[1]


class _LoopTime:
    """`time` for whoever asks the machine how long ago something was."""

    @staticmethod
    def monotonic() -> float:
        return asyncio.get_running_loop().time()


@contextmanager
def _quick_and_quiet() -> Iterator[None]:
    """What is logged about faults made on purpose is not shown."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with ExitStack() as stack:
            stack.enter_context(patch.object(peers_module, "time", _LoopTime))
            yield
    finally:
        logging.disable(before)
