"""Batches made ahead by a thread. What happens first is settled by events, never by the clock."""

import threading
import traceback

import pytest

from launcher.training import prefetch
from launcher.training.prefetch import Prefetch

TIMEOUT = 60  # for what must happen; a failing test ends


class Maker:
    """Makes a batch when it is allowed to, and says what it has begun."""

    def __init__(self, open_gates=True):
        self.made = []
        self.begun = threading.Semaphore(0)
        self.gate = threading.Semaphore(10**6 if open_gates else 0)

    def __call__(self, step):
        self.made.append(step)
        self.begun.release()
        assert self.gate.acquire(timeout=TIMEOUT)
        return f"batch {step}"

    def wait_for(self, count):
        for _ in range(count):
            assert self.begun.acquire(timeout=TIMEOUT)


def threads():
    return [t for t in threading.enumerate() if t.name == "prefetch"]


@pytest.mark.parametrize("ahead", [0, 1, 2, 100])
def test_batches_come_in_order_each_made_once(ahead):
    maker = Maker()
    with Prefetch(maker, 5, 25, ahead) as batches:
        assert [batches.get(step)[0] for step in range(5, 25)] == [
            f"batch {step}" for step in range(5, 25)
        ]
    assert maker.made == list(range(5, 25))
    assert threads() == []


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_step_that_is_tried_again_gets_the_same_batch(ahead):
    with Prefetch(lambda step: object(), 0, 3, ahead) as batches:
        first, _ = batches.get(0)
        again, waited = batches.get(0)
        assert again is first and waited == 0
        second, _ = batches.get(1)
        assert second is not first and batches.get(1)[0] is second


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_than_so_many_are_made_ahead(ahead):
    maker = Maker()
    with Prefetch(maker, 0, 100, ahead) as batches:
        for step in range(10):
            maker.wait_for(ahead if step == 0 else 1)
            assert len(maker.made) == step + ahead
            # It is not on its way to another one either: it waits to be told.
            assert not maker.begun.acquire(timeout=0.02)
            batches.get(step)
    assert len(maker.made) <= 10 + ahead


def test_with_none_ahead_batches_are_made_where_they_are_asked_for():
    where = []
    with Prefetch(lambda step: where.append(threading.current_thread()), 0, 9, 0) as batches:
        batches.get(0)
        assert threads() == []
    assert where == [threading.current_thread()]


def test_the_waiting_is_measured(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(prefetch.time, "perf_counter", lambda: next(clock))
    with Prefetch(Maker(), 0, 2) as batches:
        assert batches.get(0)[1] == batches.get(1)[1] == 1


def test_get_waits_for_a_slow_maker():
    maker = Maker(open_gates=False)
    got = []
    with Prefetch(maker, 0, 1) as batches:
        user = threading.Thread(target=lambda: got.append(batches.get(0)[0]))
        user.start()
        maker.wait_for(1)
        assert got == [] and user.is_alive()
        maker.gate.release()
        user.join(TIMEOUT)
    assert got == ["batch 0"]


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_exception_comes_where_its_batch_is_asked_for_with_its_traceback(ahead):
    def spoilt(step):
        if step == 2:
            raise KeyError("no such entry")
        return step

    with Prefetch(spoilt, 0, 9, ahead) as batches:
        assert [batches.get(0)[0], batches.get(1)[0]] == [0, 1]
        for _ in range(2):
            with pytest.raises(KeyError, match="no such entry") as caught:
                batches.get(2)
            assert "spoilt" in [f.name for f in traceback.extract_tb(caught.tb)]
        assert batches.get(1)[0] == 1
    assert threads() == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_thread_ends_with_the_block_whatever_it_was_doing(error):
    maker = Maker()
    with pytest.raises(error), Prefetch(maker, 0, 10**9, 2) as batches:
        maker.wait_for(2)  # now it waits to be asked
        batches.get(0)
        raise error
    assert threads() == []

    maker = Maker(open_gates=False)
    with pytest.raises(error), Prefetch(maker, 0, 10**9, 2):
        maker.wait_for(1)  # now it is at work
        threading.Timer(0.05, maker.gate.release).start()
        raise error
    assert threads() == []
    assert maker.made == [0]


def test_a_maker_that_does_not_return_does_not_keep_the_run_from_ending(monkeypatch):
    monkeypatch.setattr(prefetch, "PATIENCE", 0.01)
    maker = Maker(open_gates=False)
    with Prefetch(maker, 0, 9):
        maker.wait_for(1)
    (left,) = threads()
    assert left.daemon
    maker.gate.release(9)
    left.join(TIMEOUT)
    assert threads() == [] and maker.made == [0]


def test_an_interrupt_while_waiting_for_a_batch():
    """What the signal's handler does: it raises in the main thread while that waits."""
    import signal

    maker = Maker(open_gates=False)

    def interrupt(number, frame):
        maker.gate.release(9)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        main = threading.get_ident()
        threading.Timer(0.05, signal.pthread_kill, [main, signal.SIGUSR1]).start()
        with pytest.raises(KeyboardInterrupt), Prefetch(maker, 0, 9) as batches:
            batches.get(0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert threads() == []


def test_steps_out_of_order_are_a_mistake_of_the_caller():
    with Prefetch(lambda step: step, 3, 6) as batches:
        for step in (2, 4, 6):
            with pytest.raises(ValueError, match=f"step {step} after step 2"):
                batches.get(step)
        batches.get(3)
    with pytest.raises(ValueError, match="end of the block"):
        for step in (4, 5):
            batches.get(step)
    with pytest.raises(ValueError, match="ahead is -1"):
        Prefetch(lambda step: step, 0, 1, -1)


def test_a_run_that_is_complete_makes_nothing():
    maker = Maker()
    with Prefetch(maker, 7, 7):
        pass
    assert maker.made == []
