"""The command line `serve-app`: thin commands over the modules beside it."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from deployments.terminal import complain, out, say, show_json
from serve_app.config.home import home_dir
from serve_app.config.load import load_config, to_yaml
from serve_app.errors import OperatorError

USAGE_ERROR = 64
CLICK_USAGE_ERROR = 2

app = typer.Typer(
    name="serve-app",
    help="Serve models with versions and traffic by config, on Ray Serve.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Hydra overrides, such as env=production, model=[digits] or http.port=8080.",
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option("--config-dir", help="A folder with further config files, such as model/my.yaml."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def _examples(*commands: str) -> str:
    """The end of a command's help; the backspace keeps click from joining the lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


@app.command(epilog=_examples("serve-app up", "serve-app up 'model=[digits]' http.port=8080"))
def up(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Start or join Ray, apply the config, wait until it serves."""
    from deployments.node import local_url
    from deployments.up import example_request
    from deployments.up import up as bring_up

    config = load_config(overrides or (), config_dir)
    seconds = bring_up(config, home_dir(), getpass.getuser())
    base = local_url(config.http.host, config.http.port)
    say(f"Serving after {seconds:.0f} s.\n")
    say(f"  HTTP  {base}" + ("   docs at /docs" if config.http.docs else ""))
    if config.grpc.enabled:
        say(f"  gRPC  {config.grpc.host}:{config.grpc.port}")
    if config.metrics.enabled:
        say(f"  Metrics  {local_url(config.metrics.host, config.metrics.port)}/metrics")
    _, command = example_request(config)
    say(f"\nTry it:\n  {command}")
    if config.env == "local":
        say("\nThis profile has no authentication and listens on 127.0.0.1 only.")


@app.command(epilog=_examples("serve-app down", "serve-app down --timeout 5"))
def down(
    timeout: Annotated[float, typer.Option(help="Seconds that requests in flight may take.")] = 60,
) -> None:
    """Drain and stop the cluster that `up` started here."""
    from deployments.up import down as take_down

    say("Stopped." if take_down(home_dir(), timeout) else "Nothing runs here.")


@app.command(epilog=_examples("serve-app status", "serve-app status --json"))
def status(
    overrides: Overrides = None, config_dir: ConfigDir = None, as_json: AsJson = False
) -> None:
    """Show models, versions, replicas, traffic and request rates."""
    from deployments.report import collect, show

    report = collect(load_config(overrides or (), config_dir), home_dir())
    if as_json:
        show_json(report)
    else:
        show(report)
    if not report["ready"]:
        raise typer.Exit(1)


@app.command(
    epilog=_examples("serve-app config", "serve-app config env=production 'model=[digits]'")
)
def config(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Print the composed and validated configuration."""
    print(to_yaml(load_config(overrides or (), config_dir)), end="")


@app.command(epilog=_examples("serve-app render", "serve-app render env=production --json"))
def render(
    overrides: Overrides = None, config_dir: ConfigDir = None, as_json: AsJson = False
) -> None:
    """Print the declarative Serve document that `up` would apply."""
    from deployments.manifest import render as render_document
    from deployments.manifest import to_yaml as document_yaml
    from deployments.up import build_id

    composed = load_config(overrides or (), config_dir)
    document = render_document(composed, home=str(home_dir()), build=build_id())
    if as_json:
        show_json(document)
    else:
        print(document_yaml(document), end="")


@app.command(
    epilog=_examples("serve-app doctor", "serve-app doctor env=production database=postgres")
)
def doctor(
    overrides: Overrides = None, config_dir: ConfigDir = None, as_json: AsJson = False
) -> None:
    """Say what is wrong with this machine or cluster."""
    from deployments.doctor import examine

    findings = list(examine(load_config(overrides or (), config_dir), home_dir()))
    if as_json:
        show_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            style = {"ok": "green", "warn": "yellow", "FAIL": "red"}[finding.level]
            out.print(f"{finding.level:<5} {finding.text}", style=style, markup=False)
    if any(finding.level == "FAIL" for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Entry point: exit code 0 done, 1 failed and undone, 64 wrong usage."""
    try:
        app()
    except SystemExit as error:
        sys.exit(USAGE_ERROR if error.code == CLICK_USAGE_ERROR else error.code)
    except OperatorError as error:
        complain(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
