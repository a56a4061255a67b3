"""When a simulated hub gives entries free, and when it sends them again."""

from firmware_sim.fleet.lane import PROBE_AGAIN_S, PROBE_FIRST_S, Lane, probe_due_s
from firmware_sim.fleet.messages import Mark


def lane() -> Lane:
    return Lane(Mark(high_water=20), sent=15, acknowledged=8)


def asked() -> Lane:
    return Lane(Mark(high_water=20), sent=15, acknowledged=8, probe=(1, 8))


def test_what_has_no_puback_is_sent_again_on_a_new_connection() -> None:
    again = lane()
    again.connected()
    assert (again.sent, again.patience_s) == (8, PROBE_AGAIN_S)


def test_a_receipt_gives_free_as_far_as_it_goes() -> None:
    held = lane()
    held.received(5, 1.0)
    assert (held.mark.released, held.since_s, held.patience_s) == (5, 1.0, PROBE_FIRST_S)
    held.received(3, 2.0)
    assert held.mark.released == 5
    held.received(99, 3.0)
    assert (held.mark.released, held.since_s) == (20, None)


def test_a_receipt_with_the_probe_and_nothing_behind_it_proves_a_loss() -> None:
    lost = asked()
    lost.received(0, 1.0)
    assert lost.probe == (1, 8)
    lost.received(1, 2.0)
    assert (lost.sent, lost.acknowledged) == (1, 1)
    assert not lost.probe


def test_a_receiver_that_reads_what_waited_has_lost_nothing() -> None:
    slow = asked()
    slow.received(4, 1.0)
    assert (slow.sent, slow.probe) == (15, (1, 8))
    slow.received(8, 2.0)
    assert slow.sent == 15
    assert not slow.probe


def test_the_first_probe_that_falls_due_counts() -> None:
    lanes = [Lane(since_s=3.0, patience_s=4.0), Lane(since_s=1.0, patience_s=5.0), Lane()]
    assert probe_due_s(lanes, 2.0) == 6.0
    assert probe_due_s([Lane()], 2.0) > 100.0
