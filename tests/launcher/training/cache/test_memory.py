"""The cache in memory does what the one on disk does."""

import numpy as np
import pytest

from launcher.training.cache import MemoryCache
from launcher.training.errors import UserError
from tests.launcher.training.cache.fake_encoder import Encoder


def test_it_keeps_what_is_encoded(keys, encoder, check):
    cache = MemoryCache()
    assert cache.missing(keys).all()
    cache.fill("text", keys[10:20], Encoder(keys[10:20]), str, batch_size=4)
    assert np.flatnonzero(~cache.missing(keys)).tolist() == list(range(10, 20))
    cache.discard(list(keys[10:20]))
    cache.fill("text", keys, encoder, str, batch_size=4)
    assert encoder.positions == list(range(50)) and len(cache) == 50
    assert encoder.calls[-1] == [48, 49, 49, 49]
    check(cache)
    with pytest.raises(KeyError):
        cache.get(b"\0" * 32)


def test_entries_are_read_only_and_their_own(keys):
    buffer = np.zeros((4, 3))

    def encode(positions):
        buffer[:] = np.array(positions)[:, None]
        return {"a": buffer}

    cache = MemoryCache()
    cache.fill("text", keys, encode, str, batch_size=4)
    array = cache.get(keys[5].tobytes())["a"]
    assert (array == 5).all() and array.base is None
    with pytest.raises(ValueError):
        array[0] = 1


def test_what_is_not_finite_is_named(keys):
    def encode(positions):
        return {"a": np.where(np.array(positions) == 8, np.nan, 1.0)}

    with pytest.raises(UserError, match="the encoding of 8 is of no use"):
        MemoryCache().fill("text", keys, encode, str, batch_size=4)
