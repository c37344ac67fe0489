"""`launcher precision`."""

from __future__ import annotations

from launcher.arguments import add_plugin_options, new_parser, parse, read_settings


def precision(argv: list[str]) -> None:
    """show what each part is kept in and computes in"""
    parser = new_parser(
        "precision",
        "launcher precision --recipe NAME [--config FILE] [-p PLUGIN] [--json] [name=value ...]",
        "Show what each part of a run is kept in and computes in, as seen in the compiled graphs: "
        "loads\nthe weights, encodes the samples of one step, compiles the forward pass. Trains "
        "and writes nothing.",
        "launcher precision --recipe flux_controlnet --config quickstart "
        "--config precision/policy_b",
    )
    add_plugin_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for other programs")
    options, rest = parse(parser, argv)
    if options is None:
        return
    settings = read_settings(parser, rest)

    import json

    from launcher.choice import configure
    from launcher.console import Console
    from launcher.look import look
    from launcher.training.errors import refuse

    plugins, resolved = configure(options, settings)
    report, problems = look(plugins, resolved.config, Console())
    print(json.dumps(report.as_json(), indent=2) if options.json else report.table())
    refuse(problems)
