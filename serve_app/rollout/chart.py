"""The report of an experiment as a picture: SVG, or plain characters for a terminal.

One row per arm, with its mean as a point and its interval as a bar, over one common axis. The
verdict is the title.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor, log10
from textwrap import wrap
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _RIGHT, _ROW = 900, 180, 250, 54
_LONGEST = 14
"""Characters of a name that have room."""
_INK, _MUTED, _FAINT = "#1f2933", "#66727f", "#e3e8ee"
_COLOURS = {"winner": "#1a7f4e", "control": "#52606d", "other": "#2f6fba"}
_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;"
    f"font-size:13px;fill:{_INK}}}"
    f".muted{{fill:{_MUTED};font-size:12px}}"
    ".title{font-size:17px;font-weight:600}"
    ".name{font-size:14px;font-weight:600}"
)


class _Axis(NamedTuple):
    """Values from low to high, and where lines are drawn."""

    low: float
    high: float
    ticks: Sequence[float]

    def at(self, value: float, width: float) -> float:
        """How far along an axis of this width; outside is cut off."""
        share = (value - self.low) / (self.high - self.low)
        return min(max(share, 0.0), 1.0) * width


def svg(document: Mapping[str, Any]) -> str:
    """The picture as an SVG document that needs nothing from elsewhere.

    Args:
        document: see `experiment.report`.
    """
    title, details = _headline(document["verdict"])
    head = [*((line, "title") for line in wrap(title, 80)), *((line, "muted") for line in details)]
    top = 56 + 22 * len(head)
    arms, axis = document["arms"], _axis(document)
    bottom = top + _ROW * len(arms)
    plot = _WIDTH - _LEFT - _RIGHT
    parts = [_text(28, 30, f"{document['model']}: {document['measure']}", "muted")]
    parts += [_text(28, 56 + 22 * row, line, style) for row, (line, style) in enumerate(head)]
    for tick in axis.ticks:
        x = _LEFT + axis.at(tick, plot)
        parts.append(_line(x, top - 8, x, bottom, _FAINT))
        parts.append(_text(x, bottom + 20, _number(document, tick, axis), "muted", "middle"))
    for row, arm in enumerate(arms):
        parts += _arm(document, arm, axis, top + _ROW * row + _ROW / 2 - 4)
    parts.append(_text(28, bottom + 50, _legend(document), "muted"))
    height = bottom + 68
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {_WIDTH} {height:.0f}" role="img"><title>{escape(document["verdict"])}'
        f'</title><style>{_STYLE}</style><rect width="100%" height="100%" fill="#ffffff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def text(document: Mapping[str, Any], width: int = 80) -> str:
    """The same for a terminal, in ASCII, no line longer than `width` (at least 40)."""
    axis = _axis(document)
    names = [f"{arm['version']}{_role(document, arm)}" for arm in document["arms"]]
    left = min(max(map(len, names)), width // 3)
    plot = width - left - 3
    lines = [f"{document['model']}: {document['measure']}", "", *wrap(document["verdict"], width)]
    for name, arm in zip(names, document["arms"], strict=True):
        lines += ["", f"{name[:left]:<{left}} |{_bar(arm, axis, plot)}|"]
        figures = wrap(f"{_mean(document, arm)} of {_counts(arm)}", plot)
        lines += [" " * (left + 2) + line for line in figures]
    first, last = (_number(document, end, axis) for end in (axis.low, axis.high))
    lines += ["", f"{'':<{left}}  {first}{last:>{plot - len(first)}}"]
    lines += ["", *wrap(_legend(document), width)]
    return "\n".join(lines) + "\n"


def _headline(verdict: str) -> tuple[str, list[str]]:
    """The first sentence, and the lines of the others."""
    first, _, others = verdict.partition(". ")
    return first.removesuffix("."), wrap(others, 112)


def _axis(document: Mapping[str, Any]) -> _Axis:
    """All means and intervals, a bit of air, and round ticks; shares stay between 0 and 1."""
    ends = [arm[key] for arm in document["arms"] for key in ("low", "mean", "high")]
    known = [end for end in ends if end is not None] or [0.0, 1.0]
    low, high = min(known), max(known)
    air = 0.08 * (high - low) or max(abs(high), 1.0) * 0.1
    low, high = low - air, high + air
    if document["kind"] == "label":
        low, high = max(low, 0.0), min(high, 1.0)
    rough = (high - low) / 5
    power = 10.0 ** floor(log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = -floor(-low / step + 1e-9)
    count = floor((high - first * step) / step + 1e-9) + 1
    return _Axis(low, high, [(first + index) * step for index in range(count)])


def _arm(document: Mapping[str, Any], arm: Mapping[str, Any], axis: _Axis, y: float) -> list[str]:
    plot = _WIDTH - _LEFT - _RIGHT
    kind = "winner" if arm["version"] == document["winner"] else "other"
    if kind == "other" and arm["version"] == document["control"]:
        kind = "control"
    colour = _COLOURS[kind]
    parts = [
        _text(28, y, f"version {_cut(arm['version'])}", "name"),
        _text(28, y + 18, _role(document, arm).strip(" ()"), "muted"),
        _text(_WIDTH - _RIGHT + 24, y, _mean(document, arm), "name"),
        _text(_WIDTH - _RIGHT + 24, y + 18, _counts(arm), "muted"),
    ]
    if arm["mean"] is None:
        return [*parts, _text(_LEFT + plot / 2, y + 4, "no outcomes yet", "muted", "middle")]
    low, high = (
        axis.at(end if end is not None else limit, plot)
        for end, limit in ((arm["low"], axis.low), (arm["high"], axis.high))
    )
    parts.append(
        f'<rect x="{_LEFT + low:.1f}" y="{y - 4:.1f}" width="{max(high - low, 2):.1f}" '
        f'height="14" rx="7" fill="{colour}" fill-opacity="0.28"/>'
    )
    x = _LEFT + axis.at(arm["mean"], plot)
    parts.append(
        f'<circle cx="{x:.1f}" cy="{y + 3:.1f}" r="6" fill="{colour}" '
        f'stroke="#ffffff" stroke-width="2"/>'
    )
    return parts


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _bar(arm: Mapping[str, Any], axis: _Axis, width: int) -> str:
    cells = [" "] * width
    if arm["mean"] is None:
        return " no outcomes yet".ljust(width)[:width]
    low = axis.low if arm["low"] is None else arm["low"]
    high = axis.high if arm["high"] is None else arm["high"]
    first, last, mean = (round(axis.at(value, width - 1)) for value in (low, high, arm["mean"]))
    cells[first : last + 1] = "=" * (last + 1 - first)
    cells[mean] = "O"
    return "".join(cells)


def _role(document: Mapping[str, Any], arm: Mapping[str, Any]) -> str:
    roles = [role for role in ("winner", "control") if arm["version"] == document[role]]
    return f" ({', '.join(roles)})" if roles else ""


def _mean(document: Mapping[str, Any], arm: Mapping[str, Any]) -> str:
    if arm["mean"] is None:
        return "-"
    scale, unit = (100, " %") if document["kind"] == "label" else (1, "")
    ends = ["?" if end is None else f"{scale * end:.4g}" for end in (arm["low"], arm["high"])]
    return f"{scale * arm['mean']:.4g}{unit} ({ends[0]} to {ends[1]})"


def _counts(arm: Mapping[str, Any]) -> str:
    return f"{arm['outcomes']:,} outcomes, {arm['exposures']:,} requests"


def _number(document: Mapping[str, Any], value: float, axis: _Axis) -> str:
    """A label of the axis, with as many digits as tell the ticks apart."""
    scale, unit = (100, " %") if document["kind"] == "label" else (1, "")
    step = scale * (axis.high - axis.low) / 10
    return f"{scale * value + 0.0:,.{max(0, -floor(log10(step)))}f}{unit}"


def _legend(document: Mapping[str, Any]) -> str:
    return (
        f"Bars: {100 * document['confidence']:.4g} % confidence at every look, "
        f"each arm on its own. {document['better'].capitalize()} is better."
    )


def _text(x: float, y: float, content: str, style: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">'
        f"{escape(content)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
