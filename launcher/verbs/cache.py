"""`launcher cache`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from launcher.arguments import new_parser, parse, refuse_rest
from launcher.training.errors import UserError

if TYPE_CHECKING:
    from launcher.training.cache.disk import DiskCache
    from launcher.training.cache.upkeep import Damage, Group

_ROWS_SHOWN = 20


def cache(argv: list[str]) -> None:
    """list, check and clear what runs have encoded"""
    verb, rest = (argv[0], argv[1:]) if argv else ("", [])
    if verb in _VERBS:
        _VERBS[verb](rest)
        return
    parser = new_parser(
        "cache",
        "launcher cache VERB [DIR] [options]",
        "Look after the cache of encodings, which runs share. DIR is its folder, or the "
        "data.cache_dir\nthat it is in; without one, the cache in ~/.cache/launcher is meant.",
        "launcher cache prune --unused-for 30d",
    )
    width = max(map(len, _VERBS))
    verbs = "\n".join(f"  {n:<{width}}  {f.__doc__}" for n, f in _VERBS.items())
    parser.epilog = f"verbs (`launcher cache VERB --help`):\n{verbs}\n\n{parser.epilog}"
    if verb.startswith("-"):
        options, rest = parse(parser, argv)
        if options is None:
            return
        refuse_rest(parser, rest)
    from launcher.entry_points import near

    hint = near(verb, _VERBS) if verb else ""
    stated = f"there is no verb `{verb}` of `launcher cache`" if verb else "what is to be done"
    raise UserError(
        f"{stated}{hint or ('.' if verb else '?')} The verbs are {', '.join(_VERBS)}; "
        "`launcher cache --help` explains them."
    )


def _ls(argv: list[str]) -> None:
    """what is in it, how large it is, when it was last used"""
    parser = _new_parser(
        "ls",
        "launcher cache ls [DIR] [--json]",
        "Show what a cache holds: by kind, and by what it was encoded with.",
        "launcher cache ls",
    )
    options = _parse(parser, argv)
    if options is None:
        return
    opened = _open(options.directory)

    from launcher.training.cache.upkeep import summarise

    groups = summarise(opened)
    print(_listing_json(opened, groups) if options.json else _listing(opened, groups))


def _listing_json(opened: DiskCache, groups: list[Group]) -> str:
    import dataclasses

    return _json(
        directory=str(opened.directory),
        groups=[dataclasses.asdict(group) for group in groups],
        damaged=_shards_json([*opened.damaged, *opened.unreadable]),
    )


def _listing(opened: DiskCache, groups: list[Group]) -> str:
    import time

    from launcher.training.sizes import age_text, size_text

    entries, size = sum(g.entries for g in groups), sum(g.size for g in groups)
    lines = [f"{opened.directory}: {_count(entries, 'entry', 'entries')}, {size_text(size)}"]
    for group in groups:
        lines += [
            "",
            f"{group.kind}: {_count(group.entries, 'entry', 'entries')} in "
            f"{_count(group.shards, 'shard')}, {size_text(group.size)}, "
            f"last used {age_text(time.time() - group.last_used)}",
        ]
        rows = group.arrays | group.about
        width = max(map(len, rows), default=0)
        lines += [f"    {name:<{width}}  {value}" for name, value in rows.items()]
    broken = len(opened.damaged) + len(opened.unreadable)
    if broken:
        lines += ["", f"{_count(broken, 'damaged shard')}: `launcher cache verify` names them."]
    return "\n".join(lines)


def _verify(argv: list[str]) -> None:
    """compare everything with its checksum"""
    parser = _new_parser(
        "verify",
        "launcher cache verify [DIR] [--drop] [--json]",
        "Read a whole cache and compare it with its checksums. Names what is damaged, with exit "
        "code 2.",
        "launcher cache verify --drop",
    )
    parser.add_argument(
        "--drop", action="store_true", help="remove what is damaged; the next run encodes it anew"
    )
    options = _parse(parser, argv)
    if options is None:
        return
    opened = _open(options.directory)

    from launcher.console import Console
    from launcher.training.cache.upkeep import drop, verify

    listing = opened.listing()
    with Console().progress(len(listing), what="verifying", unit="shard") as progress:
        damage = verify(opened, lambda: progress.update(progress.done + 1))
    if options.drop:
        drop(opened, damage)
    if options.json:
        print(
            _json(
                directory=str(opened.directory),
                entries=sum(shard.layout.count for shard in listing),
                damaged_shards=_shards_json(damage.shards),
                damaged_entries=[vars(entry) for entry in damage.entries],
                dropped=options.drop,
            )
        )
    found = _describe(damage)
    if found and not options.drop:
        again = f"launcher cache verify {options.directory or ''}".rstrip()
        raise UserError(
            "\n".join([f"{opened.directory} is damaged:", *found])
            + f"\n`{again} --drop` removes that, and the next run encodes it anew."
        )
    if options.json:
        return
    for line in found:
        print(line)
    entries = _count(sum(shard.layout.count for shard in listing), "entry", "entries")
    if found:
        print("Removed all of that; the next run encodes it anew.")
    else:
        print(f"{opened.directory}: {entries} in {_count(len(listing), 'shard')}, all intact")


def _describe(damage: Damage) -> list[str]:
    """Lines of text; of many entries, the first."""
    lines = [f"- {path} {reason}" for path, reason in damage.shards]
    lines += [
        f"- {entry.path}, entry {entry.row} ({entry.key}): {', '.join(entry.arrays)}"
        for entry in damage.entries
    ]
    more = len(lines) - _ROWS_SHOWN
    return [*lines[:_ROWS_SHOWN], f"- and {more} more"] if more > 1 else lines


def _prune(argv: list[str]) -> None:
    """remove what is of no use, or not used any more"""
    parser = _new_parser(
        "prune",
        "launcher cache prune [DIR] [--unused-for TIME] [--max-size SIZE] [--dry-run] [--json]",
        "Remove what processes that were killed have left, damaged shards, and entries that are "
        "there\ntwice; with the options, also what was not used for a long time.",
        "launcher cache prune --unused-for 30d --max-size 500GB",
    )
    parser.add_argument(
        "--unused-for",
        metavar="TIME",
        help="remove what no run has used for so long: 30d, 12h, 2w",
    )
    parser.add_argument(
        "--max-size",
        metavar="SIZE",
        help="remove what was not used for the longest time, until no more is left than that: 50GB",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    options = _parse(parser, argv)
    if options is None:
        return

    from launcher.training.sizes import parse_size, parse_time, size_text

    unused_for = _limit("--unused-for", options.unused_for, parse_time)
    max_size = _limit("--max-size", options.max_size, parse_size)
    opened = _open(options.directory)

    from launcher.training.cache.upkeep import prune

    removals = prune(opened, unused_for=unused_for, max_size=max_size, dry_run=options.dry_run)
    if options.json:
        print(
            _json(
                directory=str(opened.directory),
                dry_run=options.dry_run,
                removed=[vars(removal) for removal in removals],
            )
        )
        return
    for removal in removals:
        print(f"{removal.path}: {removal.reason} ({size_text(removal.size)})")
    total = size_text(sum(removal.size for removal in removals))
    if not removals:
        print(f"{opened.directory}: nothing to remove")
    else:
        print(f"{'Would remove' if options.dry_run else 'Removed'} {total}.")


_VERBS = {"ls": _ls, "verify": _verify, "prune": _prune}


def _new_parser(verb: str, usage: str, description: str, example: str) -> argparse.ArgumentParser:
    parser = new_parser(f"cache {verb}", usage, description, example)
    parser.add_argument(
        "directory",
        metavar="DIR",
        nargs="?",
        help="the cache, or the data.cache_dir that it is in; default: the one in "
        "~/.cache/launcher",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for other programs")
    return parser


def _parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace | None:
    options, rest = parse(parser, argv)
    if options is not None:
        refuse_rest(parser, rest)
    return options


def _open(directory: str | None) -> DiskCache:
    from launcher.training.cache import DiskCache
    from launcher.training.cache.upkeep import locate

    return DiskCache(locate(directory))


def _limit(option: str, text: str | None, convert: Callable[[str], float]) -> float:
    """An option's value; infinity if it is not given."""
    try:
        return math.inf if text is None else convert(text)
    except ValueError as error:
        raise UserError(f"{option}: {error}.") from None


def _count(number: int, singular: str, plural: str = "") -> str:
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def _shards_json(rows: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"path": path, "reason": reason} for path, reason in rows]


def _json(**values: Any) -> str:
    import json

    return json.dumps(values, indent=2)
