"""The commands about one model's releases: traffic, rollouts, experiments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli_options import (
    AsJson,
    ConfigDir,
    Model,
    Reason,
    Settings,
    admin,
    examples,
)
from deployments.terminal import say, show_json
from serve_app.config.load import load_config

_WEIGHT = re.compile(r"([A-Za-z0-9._-]{1,128})=([0-9]{1,3})%?")


def add_release_commands(app: typer.Typer) -> None:
    """Adds them to the command line."""
    app.command(epilog=examples("serve-app traffic digits", "serve-app traffic digits 2=90 3=10"))(
        traffic
    )
    app.command(epilog=examples("serve-app rollout digits", "serve-app rollout digits --json"))(
        rollout
    )
    app.command(epilog=examples("serve-app promote digits --reason 'looks good'"))(promote)
    app.command(epilog=examples("serve-app pause digits"))(pause)
    app.command(epilog=examples("serve-app resume digits"))(resume)
    app.command(epilog=examples("serve-app report digits", "serve-app report digits --svg ab.svg"))(
        report
    )
    app.command(epilog=examples("serve-app disagreements digits --limit 5"))(disagreements)


def traffic(
    model: Model,
    weights: Annotated[
        list[str] | None,
        typer.Argument(metavar="VERSION=PERCENT", help="Together 100; others get none."),
    ] = None,
    reason: Reason = "",
    settings: Settings = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Show how a model's traffic is shared, or share it by other weights."""
    from deployments.release_view import show_revision

    wanted = _weights(weights or [])
    with admin(load_config(settings or (), config_dir)) as api:
        found = api.traffic(model, wanted, reason) if wanted else api.release(model)
        going_on = api.rollouts(model, 1)
    if as_json:
        show_json(found)
        return
    show_revision(found)
    if going_on and going_on[0]["state"] in ("pending", "progressing", "paused"):
        say(f"A rollout is {going_on[0]['state']}: {going_on[0]['reason']}")
        say(f"Follow it with: serve-app rollout {model}")


def rollout(
    model: Model,
    settings: Settings = None,
    config_dir: ConfigDir = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="The newest so many.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Show a model's rollouts: state, reason, evidence."""
    from deployments.release_view import show_rollout

    with admin(load_config(settings or (), config_dir)) as api:
        found = api.rollouts(model, limit)
    if as_json:
        show_json(found)
        return
    for each in found:
        show_rollout(each)
    if not found:
        say(f"{model} has had no rollout yet.")


def promote(
    model: Model, reason: Reason = "", settings: Settings = None, config_dir: ConfigDir = None
) -> None:
    """End the rollout that is going on with the wanted weights."""
    _steer(model, "promote", reason, settings, config_dir)


def pause(
    model: Model, reason: Reason = "", settings: Settings = None, config_dir: ConfigDir = None
) -> None:
    """Hold the rollout that is going on at its step."""
    _steer(model, "pause", reason, settings, config_dir)


def resume(
    model: Model, reason: Reason = "", settings: Settings = None, config_dir: ConfigDir = None
) -> None:
    """Let a paused rollout go on; its step begins anew."""
    _steer(model, "resume", reason, settings, config_dir)


def report(
    model: Model,
    svg: Annotated[Path | None, typer.Option(help="Also write the picture to this file.")] = None,
    settings: Settings = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare the versions of a model by the outcomes that were reported, with a verdict."""
    from deployments.terminal import WIDTH
    from serve_app.rollout import svg as picture
    from serve_app.rollout import text

    with admin(load_config(settings or (), config_dir)) as api:
        found = api.report(model)
    if svg is not None:
        svg.write_text(picture(found))
    if as_json:
        show_json(found)
    else:
        print(text(found, WIDTH), end="")
        if svg is not None:
            say(f"Picture: {svg}")


def disagreements(
    model: Model,
    limit: Annotated[int, typer.Option(min=1, max=200, help="The newest so many.")] = 10,
    settings: Settings = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Show shadow answers that differed from those that clients got."""
    from deployments.release_view import show_disagreements

    with admin(load_config(settings or (), config_dir)) as api:
        found = api.disagreements(model, limit)
    show_json(found) if as_json else show_disagreements(found)


def _steer(
    model: str, verb: str, reason: str, settings: list[str] | None, config_dir: Path | None
) -> None:
    with admin(load_config(settings or (), config_dir)) as api:
        found = api.steer(model, verb, reason)
    say(f"The rollout of {model} is {found['state'].replace('_', ' ')}: {found['reason']}")


def _weights(given: list[str]) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for each in given:
        match = _WEIGHT.fullmatch(each)
        if match is None or match[1] in wanted:
            raise typer.BadParameter(f"{each!r} is not VERSION=PERCENT, each version once")
        wanted[match[1]] = int(match[2])
    if wanted and sum(wanted.values()) != 100:
        total = sum(wanted.values())
        raise typer.BadParameter(f"the weights must sum up to 100, not {total}")
    return wanted
