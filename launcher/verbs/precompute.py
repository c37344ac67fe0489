"""`launcher precompute`."""

from __future__ import annotations

from launcher.arguments import add_run_options, new_parser, parse, read_settings


def precompute(argv: list[str]) -> None:
    """encode the data set into the cache, and stop"""
    parser = new_parser(
        "precompute",
        "launcher precompute --recipe NAME [--config FILE] [-p PLUGIN] [name=value ...]",
        "Encode what a run needs encoded, as far as it is not in the cache yet, and stop. Takes "
        "the\narguments of the run, which then finds everything there. It can be interrupted at "
        "any moment,\nand goes on from there.",
        "launcher precompute --recipe flux_controlnet --config quickstart",
    )
    add_run_options(parser, dry_run=False)
    options, rest = parse(parser, argv)
    if options is None:
        return
    settings = read_settings(parser, rest)

    from launcher import child, pipeline
    from launcher.choice import configure
    from launcher.console import Console
    from launcher.interrupt import listening
    from launcher.trace import tracing

    parent = child.parent()
    console = Console()
    with listening(), tracing(console.headline, options.trace) as trace:
        plugins, resolved = configure(options, settings, trace)
        encoded = pipeline.precompute(plugins, resolved, console)
        if parent is not None:
            parent.tell(observed=encoded.report.observations())
