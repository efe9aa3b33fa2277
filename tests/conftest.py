"""Fixtures that several kinds of tests share: one or two whole Wefts, started once per session."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.stack import Stack

# A property that holds is no less true on a machine that does much else.
settings.register_profile("weft", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("weft")

StackOf = Callable[[int], Stack]


@pytest.fixture(scope="session")
def stack_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackOf]:
    """The session's stacks by number, each started when it is first asked for."""
    started: dict[int, Stack] = {}
    authority_folder = tmp_path_factory.mktemp("authority")

    def of(number: int) -> Stack:
        if number not in started:
            folder = tmp_path_factory.mktemp(f"stack{number}")
            started[number] = Stack(folder, authority_folder=authority_folder)
            started[number].start()
        return started[number]

    yield of
    for stack in started.values():
        stack.stop()


@pytest.fixture
def stack(stack_of: StackOf) -> Stack:
    """One Weft, shared by the session: tests make users of their own in it."""
    stack = stack_of(0)
    stack.wait_until_ready()
    return stack


@pytest.fixture
def two_stacks(stack_of: StackOf) -> tuple[Stack, Stack]:
    """Two Wefts that federate, shared by the session; the first one is `stack`."""
    both = stack_of(0), stack_of(1)
    for stack in both:
        stack.wait_until_ready()
    return both
