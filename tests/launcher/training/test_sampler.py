import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from launcher.training.sampler import Sampler


def all_indices(sampler, steps):
    return [
        i
        for step in range(steps)
        for micro_batch in range(sampler.accumulation_steps)
        for i in sampler.indices(step, micro_batch)
    ]


def test_every_sample_once_per_epoch_though_batches_do_not_divide_the_data_set():
    sampler = Sampler(dataset_size=10, batch_size=3, accumulation_steps=1, seed=0)
    seen = all_indices(sampler, 10)  # 30 samples: three epochs
    epochs = [seen[0:10], seen[10:20], seen[20:30]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_order_depends_on_the_seed_and_on_nothing_else():
    def order(seed):
        return all_indices(Sampler(20, 4, 1, seed), 5)

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.parametrize(("accumulation_steps", "world_size"), [(1, 4), (4, 1), (2, 2)])
def test_processes_and_accumulation_cut_up_the_same_global_batch(accumulation_steps, world_size):
    whole = Sampler(100, 8, 1, seed=0)
    ranks = [
        Sampler(100, 2, accumulation_steps, seed=0, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert all(rank.global_batch == whole.global_batch for rank in ranks)
    for step in (0, 5, 12):  # step 12 crosses into the second epoch
        drawn = {}
        for rank in ranks:
            for number in range(accumulation_steps):
                drawn.update(zip(rank.slots(number), rank.indices(step, number), strict=True))
        assert [drawn[slot] for slot in range(8)] == whole.indices(step, 0)


def test_a_batch_may_be_larger_than_the_data_set():
    sampler = Sampler(dataset_size=3, batch_size=8, accumulation_steps=1, seed=0)
    batch = sampler.indices(0, 0)
    assert sorted(batch[:3]) == sorted(batch[3:6]) == [0, 1, 2]


def test_steps_and_epochs():
    sampler = Sampler(dataset_size=10, batch_size=4, accumulation_steps=2, seed=0)
    assert sampler.steps_for(epochs=1) == 2
    assert sampler.steps_for(epochs=4) == 5
    assert [sampler.epoch(step) for step in range(4)] == [0, 0, 1, 2]


def test_the_order_of_a_data_set_without_groups_is_what_it_always_was():
    sampler = Sampler(10, 2, accumulation_steps=2, seed=7, rank=1, world_size=2)
    drawn = [sampler.indices(step, number) for step in range(4) for number in range(2)]
    assert drawn == [[5, 1], [4, 6], [1, 3], [6, 2], [7, 0], [3, 9], [5, 4], [4, 0]]


# Groups. Brute force: every micro-batch of a run, in order, on every process.

LARGE, SMALL, SINGLE = 5, 0, 2
GROUPS = np.array([LARGE] * 23 + [SMALL] * 9 + [SINGLE], np.uint8)
np.random.default_rng(0).shuffle(GROUPS)


def samplers(batch_size=2, accumulation_steps=2, world_size=2, seed=3, groups=GROUPS):
    return [
        Sampler(len(groups), batch_size, accumulation_steps, seed, rank, world_size, groups)
        for rank in range(world_size)
    ]


def micro_batches(ranks, steps):
    """Sample numbers of each micro-batch, all processes together."""
    return [
        [i for sampler in ranks for i in sampler.indices(step, number)]
        for step in range(steps)
        for number in range(ranks[0].accumulation_steps)
    ]


def test_a_micro_batch_is_full_and_of_one_group_on_all_processes():
    ranks = samplers()
    for number, samples in enumerate(micro_batches(ranks, 40)):
        assert len(samples) == 4
        (group,) = set(GROUPS[samples])
        assert [s.group(*divmod(number, 2)) for s in ranks] == [group] * 2


def test_every_sample_of_a_group_once_per_pass():
    drawn = [i for samples in micro_batches(samplers(), 60) for i in samples]
    for group in (LARGE, SMALL, SINGLE):
        members = np.flatnonzero(group == GROUPS).tolist()
        seen = [i for i in drawn if GROUPS[i] == group]
        size = len(members)
        passes = [seen[k : k + size] for k in range(0, len(seen) - size + 1, size)]
        assert len(passes) > 3
        assert all(sorted(one) == members for one in passes)
        assert size == 1 or passes[0] != passes[1]


def test_after_an_epoch_every_sample_has_been_seen_as_often_as_epochs_have_passed():
    ranks = samplers()
    for epochs in (1, 2, 5, 12):
        steps = ranks[0].steps_for(epochs)
        total = sum(math.ceil(epochs * n / 4) for n in Counter(GROUPS.tolist()).values())
        assert steps == math.ceil(total / 2)
        taken = micro_batches(ranks, steps)[:total]
        times = Counter(i for samples in taken for i in samples)
        for group, size in Counter(GROUPS.tolist()).items():
            counts = [times[i] for i in np.flatnonzero(group == GROUPS)]
            assert min(counts) >= epochs
            assert sum(counts) < epochs * size + 4  # less than one micro-batch more


def test_groups_come_in_proportion():
    order = [int(GROUPS[samples[0]]) for samples in micro_batches(samplers(), 330)]
    count = Counter(order)
    for group, size in Counter(GROUPS.tolist()).items():
        assert count[group] == pytest.approx(len(order) * size / len(GROUPS), abs=2)


def test_groups_are_mixed_otherwise_in_every_epoch_and_for_every_seed():
    groups = np.repeat(np.array([0, 1], np.uint8), 200)

    def epochs(seed):  # of 100 micro-batches each
        (sampler,) = samplers(
            accumulation_steps=1, world_size=1, batch_size=4, seed=seed, groups=groups
        )
        order = [sampler.group(step, 0) for step in range(300)]
        return [order[k : k + 100] for k in (0, 100, 200)]

    orders = epochs(seed=0) + epochs(seed=1)
    for order in orders:
        assert sum(order) == 50
        assert 30 < sum(a != b for a, b in pairwise(order)) < 70
    assert len(set(map(tuple, orders))) == 6


@pytest.mark.parametrize(("batch_size", "world_size"), [(4, 1), (2, 2), (1, 4)])
def test_processes_share_what_one_process_would_take(batch_size, world_size):
    whole = micro_batches(samplers(batch_size=4, world_size=1), 30)
    assert micro_batches(samplers(batch_size=batch_size, world_size=world_size), 30) == whole


def test_any_step_can_be_taken_up_by_itself():
    whole = micro_batches(samplers(), 120)
    for step in (119, 3, 64, 17, 18, 0):
        (one, other) = samplers()  # asked for nothing before
        for number in range(2):
            drawn = one.indices(step, number) + other.indices(step, number)
            assert drawn == whole[2 * step + number]


def test_taken_and_unseen_are_what_a_run_takes_and_does_not_see():
    ranks = samplers()
    for steps in (0, 1, 2, 3, 4, 5, 9, 40):
        done = micro_batches(ranks, steps)
        order = Counter(int(GROUPS[samples[0]]) for samples in done)
        assert ranks[0].taken(steps) == {g: order[g] for g in (LARGE, SMALL, SINGLE)}
        assert ranks[0].unseen(steps) == len(GROUPS) - len({i for s in done for i in s})


def test_the_epoch_of_a_step():
    sampler = samplers()[0]
    starts = [sum(math.ceil(e * n / 4) for n in (23, 9, 1)) for e in range(20)]
    for step in range(60):
        number = 2 * step
        assert starts[sampler.epoch(step)] <= number < starts[sampler.epoch(step) + 1]


def test_one_group_in_so_many_words_is_like_none():
    one = samplers(groups=np.zeros(30, np.uint8))
    none = [Sampler(30, 2, 2, 3, rank, 2) for rank in range(2)]
    assert micro_batches(one, 50) == micro_batches(none, 50)
    assert [one[0].epoch(s) for s in range(50)] == [none[0].epoch(s) for s in range(50)]


def test_groups_smaller_than_a_batch():
    groups = np.array([0, 1, 1, 2, 2, 2], np.uint16)
    ranks = samplers(batch_size=8, accumulation_steps=1, world_size=1, groups=groups)
    done = micro_batches(ranks, 400)
    times = Counter(i for samples in done for i in samples)
    assert all(times[i] == pytest.approx(400 * 8 / 6, abs=8) for i in range(6))
    assert ranks[0].unseen(ranks[0].steps_for(1)) == 0


def test_groups_of_another_data_set_are_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\) for 4 samples"):
        Sampler(4, 1, 1, 0, groups=np.zeros(3, np.uint8))


def test_a_million_samples_stay_small():
    import tracemalloc

    groups = np.random.default_rng(0).integers(0, 20, 1_000_000).astype(np.uint8)
    tracemalloc.start()
    sampler = Sampler(len(groups), 1, 1, 0, groups=groups)
    for step in (0, 999_999, 1_000_001, 2_000_001, 10**12):  # over several epochs
        for offset in range(100):
            sampler.indices(step + offset, 0)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now < 40e6 and peak < 60e6
