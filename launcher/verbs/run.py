"""`launcher run`."""

from __future__ import annotations

from launcher.arguments import add_run_options, new_parser, parse, read_settings
from launcher.choice import configure


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

    from launcher.console import Console
    from launcher.interrupt import listening
    from launcher.trace import tracing

    if options.resume is not None:
        from launcher.resume import with_its_configuration

        options.config, settings = with_its_configuration(
            options.resume, options.recipe, options.config, settings
        )
    console = Console()
    with listening(), tracing(console.headline, options.trace) as trace:
        plugins, resolved = configure(options, settings, trace)
        if options.dry_run:
            from launcher.dry_run import dry_run

            dry_run(plugins, resolved, console, options.resume)
        else:
            from launcher import pipeline

            pipeline.run(plugins, resolved, argv, console, options.resume)
