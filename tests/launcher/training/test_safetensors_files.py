"""Headers of safetensors files, whole and damaged; files written are read by safetensors."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from launcher.training.errors import UserError
from launcher.training.safetensors_files import TensorInfo, read_header, write


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": np.ones((2, 3), np.float32), "b": np.zeros(5, np.float16)}, path)
    return path


def test_header_gives_dtype_and_shape(weights):
    assert read_header(weights) == {"a": TensorInfo("F32", (2, 3)), "b": TensorInfo("F16", (5,))}


def test_scalar_and_empty_tensors(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"s": np.array(3.0, np.float32), "e": np.zeros((0, 4), np.float32)}, path)
    assert read_header(path) == {"s": TensorInfo("F32", ()), "e": TensorInfo("F32", (0, 4))}


def with_header(path, change):
    """Rewrite the header of a file, leaving its data."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    raw = json.dumps(change(header)).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + content[8 + length :])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c[:-1], "truncated: its header describes"),
        (lambda c: c[: len(c) // 2], "truncated: its header alone should be"),
        (lambda c: c[:4], "holds 4 bytes, too few"),
        (lambda c: b"", "holds 0 bytes, too few"),
        (lambda c: c + b"\0", "damaged: its header describes"),
        (lambda c: b"\xff" * len(c), "not a safetensors file"),
        (lambda c: c[:8] + b"!" + c[9:], "not a JSON object"),
        (lambda c: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (lambda c: b"<!DOCTYPE html><html>404</html>", "not a safetensors file"),
    ],
)
def test_damaged_file_is_a_user_error(weights, damage, message):
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        read_header(weights)
    assert str(weights) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: {**h, "a": {"dtype": "F32"}}, "no valid entry for 'a'"),
        (lambda h: {**h, "a": {**h["a"], "shape": [2, 4]}}, "does not fit"),
        (lambda h: {k: v for k, v in h.items() if k != "a"}, "overlap or leave gaps|describes"),
        (lambda h: [1], "not a JSON object"),
    ],
)
def test_inconsistent_header_is_a_user_error(weights, change, message):
    with_header(weights, change)
    with pytest.raises(UserError, match=message):
        read_header(weights)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        read_header(tmp_path)


def test_written_file_reads_back_bit_for_bit(tmp_path):
    arrays = {
        "z.weight": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32),
        "a": np.arange(7, dtype=np.float16),
        "scalar": np.array(2.5, np.float32),
    }
    infos = {
        "z.weight": TensorInfo("F32", (3, 4)),
        "a": TensorInfo("F16", (7,)),
        "scalar": TensorInfo("F32", ()),
    }
    path = tmp_path / "w.safetensors"
    write(path, infos, arrays.__getitem__, metadata={"format": "pt"})
    back = load_file(path)
    assert back.keys() == arrays.keys()
    assert all(back[name].tobytes() == arrays[name].tobytes() for name in arrays)
    assert read_header(path) == infos
