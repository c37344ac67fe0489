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
