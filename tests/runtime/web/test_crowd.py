"""Who keeps a connection to the live page when there are too many."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from runtime.web.crowd import STRANGERS_MAX, STRANGERS_OF_ADDRESS_MAX, VIEWERS_MAX, Crowd


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=400))
def test_there_are_never_more_than_there_is_room_for(arrivals: list[tuple[int, bool]]) -> None:
    crowd: Crowd[int] = Crowd()
    strangers: dict[int, str] = {}
    viewers: dict[int, str] = {}
    for number, (host, allowed) in enumerate(arrivals):
        address = f"host {host % 7 if host < 38 else 0}"
        displaced = crowd.come(number, address)
        strangers[number] = address
        if displaced is not None:
            del strangers[displaced]  # a stranger, never a viewer
        if allowed and number in strangers:
            displaced = crowd.become_viewer(number, address)
            viewers[number] = strangers.pop(number)
            if displaced is not None:
                held = Counter(viewers.values())
                assert held[viewers.pop(displaced)] == max(held.values())
    assert crowd.strangers == len(strangers) <= STRANGERS_MAX
    assert len(viewers) <= VIEWERS_MAX
    assert max(Counter(strangers.values()).values(), default=0) <= STRANGERS_OF_ADDRESS_MAX


def test_a_storm_from_one_address_displaces_neither_viewers_nor_other_strangers() -> None:
    crowd: Crowd[str] = Crowd()
    crowd.come("viewer", "phone")
    assert crowd.become_viewer("viewer", "phone") is None
    crowd.come("slow", "laptop")
    displaced = {crowd.come(f"storm {n}", "attacker") for n in range(1000)}
    assert displaced.isdisjoint({"viewer", "slow"})
    assert len(displaced - {None}) == 1000 - STRANGERS_OF_ADDRESS_MAX


def test_of_many_viewers_the_one_that_asked_longest_ago_goes() -> None:
    crowd: Crowd[int] = Crowd()
    for number in range(VIEWERS_MAX):
        crowd.come(number, "here")
        assert crowd.become_viewer(number, "here") is None
    crowd.used(0)
    crowd.come(99, "here")
    assert crowd.become_viewer(99, "here") == 1
