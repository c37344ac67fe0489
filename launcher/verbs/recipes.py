"""`launcher recipes`."""

from __future__ import annotations

from launcher.arguments import new_parser, parse, refuse_rest


def recipes(argv: list[str]) -> None:
    """list the installed recipes"""
    parser = new_parser(
        "recipes",
        "launcher recipes",
        "List the installed recipes, and what is wrong with those that cannot be used.",
        "launcher recipes",
    )
    options, rest = parse(parser, argv)
    if options is None:
        return
    refuse_rest(parser, rest)

    from launcher.entry_points import installed_recipes, list_recipes
    from launcher.plugins import defect

    infos = list_recipes()
    if not infos:
        print(installed_recipes([]))
        return
    rows = [(i.name, f"{i.distribution} {i.version}", i.summary) for i in infos]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for info, (name, distribution, summary) in zip(infos, rows):
        print(f"{name:<{widths[0]}}  {distribution:<{widths[1]}}  {summary}".rstrip())
        error = info.error or defect(info.name)
        if error:
            print(f"    cannot be used: {error}")
