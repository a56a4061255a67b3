from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.uplink.outbound import Flight, Outbound


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 5), max_size=12), st.data())
def test_the_cursor_is_the_contiguous_prefix_in_whatever_order_answers_come(
    counts: list[int], data: st.DataObject
) -> None:
    outbound = Outbound(10)
    flights: dict[int, Flight] = {}
    for mid, count in enumerate(counts):
        flights[mid] = Flight(outbound.sent + 1, outbound.sent + count, 100, mid)
        outbound.launch(mid, flights[mid])
    accepted: set[int] = set()
    for mid in data.draw(st.permutations(range(len(counts)))):
        good = data.draw(st.booleans())
        assert outbound.land(mid, accepted=good) == flights[mid]
        if good:
            accepted.update(range(flights[mid].first, flights[mid].last + 1))
        prefix = 10
        while prefix + 1 in accepted:
            prefix += 1
        assert outbound.cursor == prefix
    assert outbound.in_flight == outbound.in_flight_bytes == 0
    outbound.rewind()
    assert outbound.sent == outbound.cursor


def test_an_answer_to_nothing_changes_nothing() -> None:
    outbound = Outbound(0)
    assert outbound.land(7, accepted=True) is None
    assert outbound.cursor == 0


def test_what_was_evicted_is_not_waited_for_but_keeps_its_place() -> None:
    outbound = Outbound(0)
    outbound.launch(1, Flight(1, 3, 10, 5))
    outbound.skip(8)
    outbound.launch(2, Flight(9, 9, 10, 6))
    outbound.land(2, accepted=True)
    assert outbound.cursor == 0
    assert outbound.oldest_ns == 5
    outbound.land(1, accepted=True)
    assert outbound.cursor == 9
    assert outbound.oldest_ns is None
