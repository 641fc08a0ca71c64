"""The command line `serve-app`: thin commands over the modules beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli_options import (
    AsJson,
    ConfigDir,
    OfModel,
    Overrides,
    Reason,
    admin,
    examples,
    split,
)
from deployments.cli_releases import add_release_commands
from deployments.terminal import complain, out, say, show_json, user
from serve_app.config.home import home_dir
from serve_app.config.load import load_config, to_json, to_yaml
from serve_app.errors import OperatorError

CHANGES = 2
USAGE_ERROR = 64
CLICK_USAGE_ERROR = 2


class _Verdict(SystemExit):
    """An exit code that a command means itself: `main` must not take its 2 for click's."""


app = typer.Typer(
    name="serve-app",
    help="Serve models with versions and traffic by config, on Ray Serve.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command(epilog=examples("serve-app up", "serve-app up 'model=[digits]' http.port=8080"))
def up(overrides: Overrides = None, config_dir: ConfigDir = None, reason: Reason = "") -> None:
    """Start or join Ray, apply the config, wait until it serves."""
    from deployments.live import listener_url
    from deployments.up import example_body
    from deployments.up import up as bring_up

    config = load_config(overrides or (), config_dir)
    seconds = bring_up(config, home_dir(), user(), reason)
    dashboard = config.cluster.address or ""
    base = listener_url(config.http.host, config.http.port, dashboard)
    say(f"Serving after {seconds:.0f} s.\n")
    say(f"  HTTP     {base}" + ("   docs at /docs" if config.http.docs else ""))
    if config.grpc.enabled:
        grpc = listener_url(config.grpc.host, config.grpc.port, dashboard)
        say(f"  gRPC     {grpc.removeprefix('http://')}")
    if config.metrics.enabled:
        metrics = listener_url(config.metrics.host, config.metrics.port, dashboard)
        say(f"  metrics  {metrics}/metrics")
    model, body = example_body(config)
    say(
        f"\nTry it:\n  curl -s {base}/v2/models/{model}/infer "
        f"-H 'content-type: application/json' \\\n       -d '{json.dumps(body)}'"
    )
    hosts = {config.http.host, config.grpc.host, config.metrics.host}
    reach = "this machine only" if hosts <= {"127.0.0.1", "localhost", "::1"} else "the NETWORK"
    say(f"\nThere is no authentication of clients yet; these ports can be reached from {reach}.")


@app.command(epilog=examples("serve-app down", "serve-app down --timeout 5"))
def down(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    timeout: Annotated[float, typer.Option(help="Seconds that requests in flight may take.")] = 60,
) -> None:
    """Drain and stop the cluster that `up` started here, or leave the one that it joined."""
    from deployments.up import down as take_down
    from deployments.up import leave

    config = load_config(overrides, config_dir) if overrides else None
    if config is not None and config.cluster.address is not None:
        done = leave(config, home_dir(), timeout)
    else:
        done = take_down(home_dir(), timeout)
    say("Stopped." if done else "Nothing runs here.")


@app.command(epilog=examples("serve-app status", "serve-app status digits"))
def status(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL] [KEY=VALUE]", help="One model in full; overrides."),
    ] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Show models, versions, replicas, traffic and request rates; or one model in full."""
    from deployments.report import collect, collect_model
    from deployments.report_view import show, show_model

    model, overrides = split(arguments)
    config = load_config(overrides, config_dir)
    if model is None:
        report = collect(config, home_dir())
    else:
        report = collect_model(config, home_dir(), model)
    if as_json:
        show_json(report)
    else:
        (show if model is None else show_model)(report)
    if not report["ready"]:
        raise typer.Exit(1)


@app.command(
    epilog=examples(
        "serve-app plan", "serve-app plan 'models.minilm.versions.1.replicas={min: 2, max: 4}'"
    )
)
def plan(
    overrides: Overrides = None, config_dir: ConfigDir = None, as_json: AsJson = False
) -> None:
    """Show what `apply` would change; exit code 0 nothing, 2 something, 1 not possible."""
    _plan(overrides, config_dir, as_json)


@app.command(
    name="apply",
    epilog=examples(
        "serve-app apply", "serve-app apply --dry-run", "serve-app apply ingress.replicas=2"
    ),
)
def apply_config(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only plan.")] = False,
    reason: Reason = "",
) -> None:
    """Apply the config to the running cluster, and undo it if it does not become ready."""
    if dry_run:
        _plan(overrides, config_dir, as_json=False)
        return
    from deployments.up import apply_here

    config = load_config(overrides or (), config_dir)
    seconds, revision = apply_here(config, home_dir(), user(), reason)
    if revision is not None:
        say(f"Revision {revision} serves after {seconds:.0f} s.")


def _plan(overrides: list[str] | None, config_dir: Path | None, as_json: bool) -> None:
    from deployments.plan_view import as_json as plan_json
    from deployments.plan_view import show
    from deployments.survey import preview
    from deployments.target import find_target

    config = load_config(overrides or (), config_dir)
    found = preview(config, home_dir(), find_target(config, home_dir()))
    if as_json:
        show_json(plan_json(found))
    else:
        show(found)
        if found.changes and not found.refusals:
            say(f"Apply with: serve-app {'up' if found.fresh else 'apply'}")
    if found.refusals:
        raise _Verdict(1)
    if found.changes:
        raise _Verdict(CHANGES)


@app.command(
    epilog=examples(
        "serve-app history",
        "serve-app history --limit 5 --json",
        "serve-app history --model digits",
    )
)
def history(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="The newest so many.")] = 20,
    model: OfModel = None,
    as_json: AsJson = False,
) -> None:
    """List the deployments, or the releases of a model: number, when, who, what changed."""
    from deployments.history import history as list_deployments
    from deployments.history import show_history
    from deployments.release_view import show_history as show_releases
    from serve_app.store.deployments import DeploymentLog

    config = load_config(overrides or (), config_dir)
    if model is not None:
        with admin(config) as api:
            rows = api.revisions(model, limit)
        show_json(rows) if as_json else show_releases(rows)
        return
    deployed = list_deployments(DeploymentLog(config.database), limit)
    show_json(deployed) if as_json else show_history(deployed)


@app.command(
    epilog=examples(
        "serve-app rollback", "serve-app rollback 12", "serve-app rollback --model digits"
    )
)
def rollback(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[REVISION] [KEY=VALUE]",
            help="A number of `history` (without one: the last that ran before), and overrides.",
        ),
    ] = None,
    config_dir: ConfigDir = None,
    model: OfModel = None,
    reason: Reason = "",
) -> None:
    """Put a former deployment back, or a former release of one model; a new revision each."""
    from deployments.revisions import rollback as roll_back

    number, overrides = split(arguments)
    if number is not None and not number.isdecimal():
        raise typer.BadParameter(f"a revision is a number, not {number!r}")
    config = load_config(overrides, config_dir)
    revision = None if number is None else int(number)
    if model is not None:
        from deployments.release_view import show_revision

        with admin(config) as api:
            show_revision(api.rollback(model, revision, reason))
        return
    done = roll_back(config, home_dir(), user(), revision, reason)
    say(f"Revision {done} serves again.")


add_release_commands(app)


@app.command(
    epilog=examples(
        "serve-app config",
        "serve-app config env=production 'model=[digits]'",
        "serve-app config --json",
    )
)
def config(
    overrides: Overrides = None, config_dir: ConfigDir = None, as_json: AsJson = False
) -> None:
    """Print the composed and validated configuration."""
    composed = load_config(overrides or (), config_dir)
    if as_json:
        show_json(to_json(composed))
    else:
        print(to_yaml(composed), end="")


@app.command(epilog=examples("serve-app render", "serve-app render env=production --json"))
def render(
    overrides: Overrides = None, config_dir: ConfigDir = None, as_json: AsJson = False
) -> None:
    """Print the declarative Serve document that `up` would apply."""
    from deployments.manifest import render as render_document
    from deployments.manifest import to_yaml as document_yaml
    from deployments.target import build_id

    composed = load_config(overrides or (), config_dir)
    document = render_document(composed, home=str(home_dir()), build=build_id())
    if as_json:
        show_json(document)
    else:
        print(document_yaml(document), end="")


@app.command(
    epilog=examples("serve-app doctor", "serve-app doctor env=production database=postgres")
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
    """Entry point: exit code 0 done, 1 failed and undone, 64 wrong usage, 130 interrupted.

    `plan` has 2 as well, for changes that are pending. Typer itself turns an interrupt into 130.
    """
    try:
        app()
    except _Verdict:
        raise
    except SystemExit as error:
        sys.exit(USAGE_ERROR if error.code == CLICK_USAGE_ERROR else error.code)
    except (OperatorError, OSError) as error:
        complain(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
