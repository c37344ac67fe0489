"""The index against a dict."""

import numpy as np
import pytest

from launcher.training.cache.index import Index, as_keys, has_repeats


def random_keys(random, count, prefixes):
    """Keys of which many have the first eight bytes in common."""
    keys = random.integers(0, 256, (count, 32), np.uint8)
    keys[:, :8] = random.integers(0, 256, (prefixes, 8), np.uint8)[
        random.integers(0, prefixes, count)
    ]
    return keys


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("prefixes", [3, 1000])
def test_it_finds_what_a_dict_finds(seed, prefixes):
    random = np.random.default_rng(seed)
    pool = random_keys(random, 200, prefixes)
    index, shards = Index(), {}
    for shard in range(int(random.integers(1, 12))):
        if shards and random.random() < 0.3:
            gone = [int(n) for n in random.choice(list(shards), 1)]
            index.remove(gone)
            for number in gone:
                del shards[number]
        rows = random.choice(200, int(random.integers(0, 40)), replace=False)
        shards[shard] = pool[rows]
        index.add(shard, pool[rows])
        if random.random() < 0.5:
            continue
        known = {}
        for number, keys in shards.items():  # in the order they were added
            for row, key in enumerate(keys):
                known.setdefault(key.tobytes(), (number, row))
        asked = np.concatenate([pool, random_keys(random, 50, prefixes)])
        found, at = index.find(asked)
        for key, number, row in zip(asked, found, at):
            expected = known.get(key.tobytes())
            assert (None if number < 0 else (number, row)) == expected
        assert len(index) == sum(map(len, shards.values()))
        again = set(zip(*(column.tolist() for column in index.repeated())))
        everything = {(n, row) for n, keys in shards.items() for row in range(len(keys))}
        assert again == everything - set(known.values())


def test_an_empty_index():
    index = Index()
    index.remove([1])
    assert index.find(np.zeros((2, 32), np.uint8))[0].tolist() == [-1, -1]
    assert index.find(np.zeros((0, 32), np.uint8))[0].shape == (0,)


def test_what_is_no_key_is_refused():
    assert as_keys([b"a" * 32, bytearray(b"b" * 32)]).shape == (2, 32)
    assert as_keys([]).shape == (0, 32)
    for wrong in ([b"a" * 31, b"b" * 33], np.zeros((2, 16), np.uint8), np.zeros((2, 32))):
        with pytest.raises(ValueError, match="key"):
            as_keys(wrong)


def test_repeated_keys_are_seen():
    keys = random_keys(np.random.default_rng(0), 300, 3)
    assert not has_repeats(keys) and not has_repeats(keys[:0])
    keys[299] = keys[0]
    assert has_repeats(keys)
