"""`launcher run`."""

from __future__ import annotations

from launcher.arguments import add_run_options, new_parser, parse, read_settings
from launcher.choice import choose


def run(argv: list[str]) -> None:
    """train; the default when no verb is given"""
    parser = new_parser(
        "run",
        "launcher [run] --recipe NAME [options] [name=value ...]",
        "Train with a recipe.",
        "launcher --recipe flux_controlnet --config quickstart train.max_train_steps=100",
    )
    add_run_options(parser)
    options, rest = parse(parser, argv)
    if options is None:
        return
    settings = read_settings(parser, rest)

    from launcher import config

    overrides = config.read_overrides(settings)
    plugins, sources = choose(options)

    from launcher.sections import SECTIONS

    resolved = config.resolve(plugins.sections(SECTIONS), [*sources, overrides])

    from launcher import pipeline
    from launcher.console import Console

    pipeline.run(plugins, resolved, argv, Console())
