"""The cache of encodings, and diffusers' way beside it: `python benchmarks/cache.py`.

Reading: a sample of FLUX.1-dev's sizes (a 512 x 4096 embedding and 32 x 64 x 64 moments, in half
precision) from files that are in the system's page cache, each copied into a batch. On the other
side a table of the `datasets` library that holds the same numbers as lists of float32, which is
what diffusers' ControlNet script writes and reads.

Opening and memory: caches of 100,000 and 1,000,000 entries, each measured in a fresh process. Their
files are sparse: header and keys are real, the data are holes, which read as zeros and take no room
on the disk. To the cache they are files like any other: an epoch over entries of 4.2 MB maps and
copies 420 GB, which takes some minutes.

Disk: bytes of an encoded caption (the embedding, and 768 numbers of the pooled one), distinct and
repeated.

Prints each figure with its limit. The last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from launcher.training.cache import DiskCache, shards

EMBEDS, POOLED, MOMENTS = (512, 4096), (768,), (32, 64, 64)
BATCH = 4
#: Of one entry, in the synthetic caches.
PAYLOADS = {"small": (16,), "real": EMBEDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=48, help="samples to read from (48)")
    parser.add_argument(
        "--epoch", type=int, default=100_000, help="entries of 4.2 MB that are read (100000)"
    )
    parser.add_argument("--folder", help="where the files go for the time being")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        folder, count, read, payload = arguments.measure
        print(json.dumps(measure(folder, int(count), int(read), PAYLOADS[payload])))
        return
    results: dict[str, float] = {}

    def show(name: str, value: float, unit: str, limit: str = "") -> None:
        results[name] = value
        shown = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        print(f"{name:<62}{shown:>12} {unit:<6}{limit and f'limit {limit}'}", flush=True)

    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        reading(folder / "reading", arguments.samples, show)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        disk(Path(name), show)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        synthetic(Path(name), arguments.epoch, show)
    print(json.dumps({"samples": arguments.samples, "epoch": arguments.epoch, "results": results}))


def keys_of(names: list[str]) -> np.ndarray:
    digests = b"".join(hashlib.sha256(name.encode()).digest() for name in names)
    return np.frombuffer(digests, np.uint8).reshape(-1, 32)


def numbers(position: int, shape: tuple[int, ...]) -> np.ndarray:
    """What an encoder made: float16 values."""
    return np.random.default_rng(position).standard_normal(shape, np.float32).astype(np.float16)


def fill(cache: DiskCache, kind: str, keys: np.ndarray, shapes: dict[str, tuple[int, ...]]) -> None:
    def encode(positions):
        return {n: np.stack([numbers(p, s) for p in positions]) for n, s in shapes.items()}

    cache.fill(kind, keys, encode, str, batch_size=4)


def median_ms(read, count: int, rounds: int) -> float:
    """Milliseconds of one call, in an order that changes from round to round."""
    times = []
    for turn in range(rounds + 1):  # the first one warms up
        for position in np.random.default_rng(turn).permutation(count):
            start = time.perf_counter()
            read(int(position))
            if turn:
                times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def reading(folder: Path, samples: int, show) -> None:
    texts = keys_of([f"caption {n}" for n in range(samples)])
    images = keys_of([f"image {n}" for n in range(samples)])
    text_keys, image_keys = [[bytes(key) for key in keys] for keys in (texts, images)]
    cache = DiskCache(folder)
    fill(cache, "text", texts, {"embeds": EMBEDS})
    fill(cache, "image", images, {"moments": MOMENTS})
    embeds = np.zeros((BATCH, *EMBEDS), np.float16)
    moments = np.zeros((BATCH, *MOMENTS), np.float16)
    for verify in (False, True):
        cache = DiskCache(folder, verify=verify)

        def read(position: int, copy: bool = True, cache=cache) -> None:
            text, image = cache.get(text_keys[position]), cache.get(image_keys[position])
            if copy:
                embeds[position % BATCH] = text["embeds"]
                moments[position % BATCH] = image["moments"]

        def stack(number: int, cache=cache) -> None:
            chosen = [(number + n) % samples for n in range(BATCH)]
            np.stack([cache.get(text_keys[n])["embeds"] for n in chosen])
            np.stack([cache.get(image_keys[n])["moments"] for n in chosen])

        how = "verified" if verify else "not verified"
        views = median_ms(lambda p, read=read: read(p, copy=False), samples, 5)
        show(f"read a sample, {how}: views alone", views, "ms", "1")
        cached = median_ms(read, samples, 5)
        show(f"read a sample, {how}: copied into a batch", cached, "ms", "1")
        stacked = median_ms(stack, samples, 5) / BATCH
        show(f"read a sample, {how}: np.stack of {BATCH}, each", stacked, "ms", "1")

    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()

    def rows():
        for n in range(samples):
            yield {
                "embeds": numbers(n, EMBEDS).astype(np.float32),
                "moments": numbers(n, MOMENTS).astype(np.float32),
            }

    table = Dataset.from_generator(rows, cache_dir=str(folder / "arrow"))
    wide = {"embeds": embeds.astype(np.float32), "moments": moments.astype(np.float32)}

    def read_lists(position: int) -> None:
        row = table[position]
        for name, batch in wide.items():
            batch[position % BATCH] = np.array(row[name], np.float32)

    as_lists = median_ms(read_lists, min(samples, 8), 2)
    show("read a sample, datasets: lists of float32", as_lists, "ms")
    show("times as fast, verified, copied into a batch", as_lists / cached, "x")


def disk(folder: Path, show) -> None:
    from datasets import Dataset

    captions, repeats = 16, 8
    keys = keys_of([f"caption {n}" for n in range(captions)])
    cache = DiskCache(folder / "cache")
    fill(cache, "text", keys, {"embeds": EMBEDS, "pooled": POOLED})

    def rows(times: int):
        for _ in range(times):
            for n in range(captions):
                yield {
                    "embeds": numbers(n, EMBEDS).astype(np.float32),
                    "pooled": numbers(n, POOLED).astype(np.float32),
                }

    ours = size(folder / "cache") / captions
    for times, name in ((1, "distinct"), (repeats, f"each {repeats} times")):
        table = Dataset.from_generator(
            rows, gen_kwargs={"times": times}, cache_dir=str(folder / f"arrow-{times}")
        )
        arrow = sum(Path(file["filename"]).stat().st_size for file in table.cache_files) / captions
        show(f"bytes per caption, datasets, {name}", arrow, "B")
        show(f"bytes per caption, cache, {name}", ours, "B")
        show(f"cache / datasets, captions {name}", ours / arrow, "x", "0.52" if times == 1 else "")


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def synthetic(folder: Path, epoch: int, show) -> None:
    for count, payload, read in (
        (100_000, "small", 100_000),
        (100_000, "real", epoch),
        (1_000_000, "real", 0),
    ):
        place = folder / f"{payload}-{count}"
        make_sparse(place, count, PAYLOADS[payload])
        command = [sys.executable, __file__, "--measure", str(place), str(count), str(read)]
        command.append(payload)
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(output)
        what = f"{count:,} entries of {np.prod(PAYLOADS[payload]) * 2:,} B"
        limit = "1" if count == 100_000 else "5"
        show(f"{what}: shards", found["shards"], "")
        show(f"{what}: open", found["open"], "s", limit)
        show(f"{what}: find all keys", found["find"], "s")
        show(f"{what}: RSS of the index", found["index_mb"], "MB")
        if read:
            show(f"{what}: {read:,} read", found["epoch"], "s")
            show(f"{what}: RSS, that much more at its highest", found["peak_mb"], "MB", "100")


def make_sparse(folder: Path, count: int, shape: tuple[int, ...]) -> None:
    """Shards as `fill` would make them, but for the data, which are holes."""
    kind = folder / "text"
    kind.mkdir(parents=True)
    specs = {"embeds": (np.dtype(np.float16), shape)}
    each = min(256, 256 * 2**20 // shards.bytes_per_entry(specs) // 8 * 8)
    keys = synthetic_keys(count)
    for start in range(0, count, each):
        chosen = keys[start : start + each]
        layout = shards.make_layout("text", {"encoder": "none"}, len(chosen), specs)
        with open(kind / shards.file_name(layout, chosen), "wb") as file:
            file.write(layout.header + chosen.tobytes())
            file.truncate(layout.size)


def synthetic_keys(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32), np.uint8)


def measure(folder: str, count: int, read: int, shape: tuple[int, ...]) -> dict[str, float]:
    """In a process of its own: time to open a cache, and memory while it is read in random order.

    The high-water mark of the resident memory is set by the kernel, so no peak is missed; it counts
    the pages of maps as well.
    """
    keys = synthetic_keys(count)
    batch = np.ones((BATCH, *shape), np.float16)
    cache = DiskCache(Path(folder) / "none")
    cache.missing(keys[:1000])
    before = resident_mb()
    start = time.perf_counter()
    cache = DiskCache(folder)
    cache.missing(keys[:1])
    opened = time.perf_counter()
    assert len(cache) == count
    index = resident_mb() - before
    middle = time.perf_counter()
    assert not cache.missing(keys).any()
    found = time.perf_counter()
    result = {
        "open": opened - start,
        "find": found - middle,
        "index_mb": index,
        "shards": len(cache.listing()),
    }
    if read:
        order = np.random.default_rng(1).permutation(count)[:read]
        start = time.perf_counter()
        for number, position in enumerate(order):
            batch[number % BATCH] = cache.get(keys[position].tobytes())["embeds"]
        result["epoch"] = time.perf_counter() - start
        # Against the memory before the cache was opened: index, open files and maps all count.
        result["peak_mb"] = resident_mb("VmHWM") - before
    return result


def resident_mb(name: str = "VmRSS") -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


if __name__ == "__main__":
    main()
