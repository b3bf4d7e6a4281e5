"""Curves as PNG."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from tests.bench.report import Curve


def draw(curve: Curve, path: Path) -> None:
    """Cost against size, both on logarithmic scales."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, points in curve.lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(title=curve.title, xlabel=curve.x_label, ylabel=curve.y_label, xscale="log", yscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})
