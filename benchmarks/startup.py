"""How long the launcher takes to answer without training: `python benchmarks/startup.py`.

Wall time of whole processes, Python's own start included. Prints a table and, as the last line,
the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "launcher --help": ["-m", "launcher", "--help"],
    "launcher recipes": ["-m", "launcher", "recipes"],
    "launcher hooks": ["-m", "launcher", "hooks"],
}


def seconds(arguments: list[str]) -> float:
    """Wall time of one process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=11, help="processes per command (11)")
    runs = parser.parse_args().runs

    results = {}
    print(f"{'command':<20}{'median':>10}{'fastest':>10}{'slowest':>10}")
    for command, arguments in COMMANDS.items():
        seconds(arguments)  # fills the caches of the file system and of compiled modules
        times = [seconds(arguments) for _ in range(runs)]
        results[command] = statistics.median(times)
        row = (results[command], min(times), max(times))
        print(f"{command:<20}" + "".join(f"{t:>8.3f} s" for t in row))
    print(json.dumps({"runs": runs, "median_seconds": results}))


if __name__ == "__main__":
    main()
