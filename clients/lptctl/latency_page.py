"""The report of `lptctl latency` as one HTML page: no script, nothing from the network, everything escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from lptctl.latency_report import NOT_KNOWN, STATISTICS, Report, account, cell, sentence, summaries
from lptctl.latency_statistics import Bucket, histogram

_ROW_PX: Final = 20
_LABEL_PX: Final = 170
_BARS_PX: Final = 460
_COUNT_PX: Final = 80

_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 46em; margin: 2em auto; padding: 0 1em; color: #222; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin-top: 1.6em; }
blockquote { margin: 1em 0; padding: .6em 1em; border-left: 4px solid #3b6ea5; background: #f3f6fa; }
table { border-collapse: collapse; } th, td { padding: .15em .8em .15em 0; text-align: left; vertical-align: top; }
.figures td { text-align: right; font-variant-numeric: tabular-nums; } .figures th { white-space: nowrap; }
.warning { color: #a33; font-weight: bold; }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; } svg rect { fill: #3b6ea5; }
@media print { body { margin: 0; max-width: none; font-size: 12px; } }
"""


def page(report: Report) -> str:
    """The whole page."""
    title = f"Latency of {report.port}, {report.date}"
    body = [
        f"<h1>{escape(title)}</h1>",
        *_warnings(report),
        f"<blockquote>{escape(sentence(report))}</blockquote>",
        "<h2>Times in µs</h2>",
        _figures(report),
        "<h2>Distribution of the round trip</h2>",
        chart(histogram(report.run.samples.round_trip_ns)),
        "<h2>What was measured</h2>",
        _pairs(_measured(report)),
        f"<h2>{'The machine' if report.run.has_one_clock else 'The machine of the client'}</h2>",
        _pairs(report.facts.items()),
        "<h2>What the figures include</h2>",
        *(f"<p>{escape(text)}</p>" for text in _included(report)),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _warnings(report: Report) -> Iterable[str]:
    run = report.run
    if run.cut_short:
        text = f"Cut short after {run.edges:,} of {report.plan.count:,}: {run.cut_short}."
        yield f'<p class="warning">{escape(text)}</p>'
    if report.is_simulated:
        yield '<p class="warning">A simulated port: no hardware is in these figures, and they are not a rig\'s.</p>'


def _figures(report: Report) -> str:
    columns = summaries(report.run)
    header = "".join(f"<th>{escape(name)}</th>" for name in ("", *columns))
    rows = "".join(
        f"<tr><th>{escape(name)}</th>"
        + "".join(f"<td>{cell(summary, member, NOT_KNOWN)}</td>" for summary in columns.values())
        + "</tr>"
        for member, name in STATISTICS.items()
    )
    return f'<table class="figures"><tr>{header}</tr>{rows}</table>'


def chart(buckets: list[Bucket]) -> str:
    """The histogram as an SVG picture: a bar for each bucket, as long as its count."""
    most = max(bucket.count for bucket in buckets)
    width, height = _LABEL_PX + _BARS_PX + _COUNT_PX, _ROW_PX * len(buckets)
    bars = []
    for index, bucket in enumerate(buckets):
        top, text_y = index * _ROW_PX, index * _ROW_PX + 14
        length = max(1.0, _BARS_PX * bucket.count / most) if bucket.count else 0.0
        bars.append(
            f'<text x="{_LABEL_PX - 8}" y="{text_y}" text-anchor="end">'
            f"{bucket.low_us:,.1f} – {bucket.high_us:,.1f} µs</text>"
            f'<rect x="{_LABEL_PX}" y="{top + 2}" width="{length:.1f}" height="{_ROW_PX - 4}"/>'
            f'<text x="{_LABEL_PX + length + 6:.1f}" y="{text_y}">{bucket.count:,}</text>'
        )
    label = "Histogram of the round trip; each bucket is wider than the one above it by the same factor"
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(bars)}</svg>'


def _measured(report: Report) -> Iterable[tuple[str, str]]:
    run, plan = report.run, report.plan
    return {
        "Date": report.date,
        "Port": f"{report.port} ({report.kind})",
        "Daemon": report.server,
        "Connection": report.url,
        "Wire": f"data line {report.line} (pin {plan.bit + 2}) to nAck (pin 10)",
        "Samples (n)": f"{len(run.samples):,} of {plan.count:,}; {plan.warm_up:,} before them to warm up, not counted",
        "Pace": report.pace,
        "Interrupts": account(run),
    }.items()


def _included(report: Report) -> Iterable[str]:
    yield (
        "A round trip begins just before the client's request leaves that drives the line high, and ends when the "
        "interrupt that this raises is in the hands of the client program. It includes the client library (Python, "
        "blocking), the connection in both directions, the daemon, the port and its driver, the wire, and whatever the "
        "machines did in between."
    )
    yield (
        "It does not include the time for which the port is waited for, the request that drives the line low again, or "
        "what an experiment's own program does before and after. Edges without a sample are counted under Interrupts "
        "and are in no figure."
    )
    yield (
        "Line to interrupt is from the daemon's driving of the line until it learnt of the interrupt, by its own clock."
    )
    if report.run.has_one_clock:
        yield (
            "Client and daemon run on one machine and read the same clock (checked before the run), so the other two "
            "parts are known as well. The scheduling policy is the client's; the daemon's is not told."
        )
    else:
        yield (
            "The clocks of client and daemon could not be shown to be the same, so the other two parts are not known. "
            "The machine described here is the client's; the daemon's is not told."
        )


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in pairs)
    return f"<table>{rows}</table>"
