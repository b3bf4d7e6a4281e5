"""What is said of a run of `lptctl latency`: on the terminal, as JSON, as CSV. The page is `latency_page`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TextIO

from lptctl.latency_statistics import Bucket, Summary, histogram, summarize
from lptctl.outcome import escape

if TYPE_CHECKING:
    from lptctl.latency_measure import Plan, Run

# A member of Summary → how it is called.
STATISTICS: Final[Mapping[str, str]] = {
    "min": "min",
    "p50": "p50 (median)",
    "p90": "p90",
    "p99": "p99",
    "p999": "p99.9",
    "max": "max",
    "mean": "mean",
}
ROUND_TRIP: Final = "round trip"
NOT_KNOWN: Final = "–"
_BAR_CHARACTERS: Final = 44
_CSV_HEADER: Final = (
    "index",
    "sent_ns",
    "latency_ns",
    "client_to_line_ns",
    "line_to_interrupt_ns",
    "interrupt_to_client_ns",
)


class Report(NamedTuple):
    """A run with at least one sample, and what goes with it.

    `server` and `port` are what the daemon calls itself and the port; `date` and `facts` are text for people.
    """

    run: Run
    plan: Plan
    url: str
    server: str
    port: str
    date: str
    facts: Mapping[str, str]

    @property
    def line(self) -> str:
        """The data line."""
        return f"D{self.plan.bit}"

    @property
    def kind(self) -> str:
        """The kind of the port, as the daemon tells it."""
        return str(self.run.status.get("kind", "of unknown kind"))

    @property
    def is_simulated(self) -> bool:
        """Whether there is no hardware in the figures."""
        return self.kind == "simulated"

    @property
    def pace(self) -> str:
        """How samples follow one another."""
        interval_s = self.plan.interval_s
        return f"one every {interval_s:g} s" if interval_s else "one at once after the other"


def summaries(run: Run) -> dict[str, Summary | None]:
    """The round trip and its parts; None where the clocks of client and daemon cannot be compared."""
    samples = run.samples
    return {
        ROUND_TRIP: summarize(samples.round_trip_ns),
        "client to line": summarize(samples.client_to_line_ns) if run.has_one_clock else None,
        "line to interrupt": summarize(samples.line_to_interrupt_ns),
        "interrupt to client": summarize(samples.interrupt_to_client_ns) if run.has_one_clock else None,
    }


def account(run: Run) -> str:
    """Of interrupts: what became of those that are no samples, and what came besides."""
    parts = [
        f"{run.missing:,} missing",
        f"{run.merged:,} merged with others",
        f"{run.strays:,} stray",
        f"{run.told_lost:,} told lost",
    ]
    parts += [f"port {kind} {count} time{'s' * (count != 1)}" for kind, count in run.marks.items()]
    return ", ".join(parts)


def sentence(report: Report) -> str:
    """What a paper can quote."""
    run = report.run
    all_of_it = summarize(run.samples.round_trip_ns)
    named = (("median", all_of_it.p50), ("99th percentile", all_of_it.p99), ("99.9th percentile", all_of_it.p999))
    figures = [f"{name} {value:,.1f} µs" for name, value in (*named, ("maximum", all_of_it.max)) if value is not None]
    hardware = "simulated port without hardware" if report.is_simulated else f"{report.kind} port"
    machine = ", ".join(report.facts[name] for name in ("System", "Kernel", "Kernel preemption", "CPU"))
    policy = report.facts["Client's scheduling policy"]
    cut = f"; the run was cut short ({run.cut_short})" if run.cut_short else ""
    return (
        f"Round trip client → line {report.line} → interrupt (nAck) → client: {', '.join(figures)} "
        f"(n = {len(run.samples):,}, {report.pace}; interrupts: {account(run)}; "
        f"{hardware} {report.port}, {report.server}; client on {machine}, {policy}; {report.date}{cut})."
    )


# On the terminal: within 80 columns


def show(report: Report) -> str:
    """The run as text, for the terminal or a pipe."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as captured:  # Console itself does not end as a command does whose reader is gone
        console.print(_statistics_table(summaries(report.run)))
    bar = "#" if console.options.ascii_only else "█"
    buckets = histogram(report.run.samples.round_trip_ns)
    table = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join([*_heading(report), "", *table, "", f"{ROUND_TRIP}, us", *histogram_lines(buckets, bar)])


def _heading(report: Report) -> list[str]:
    run, plan = report.run, report.plan
    lines = [
        f"{report.port} ({report.kind}), {report.server}, {report.url}",
        f"{report.line} to nAck, {len(run.samples)} round trips, {report.pace}",
        f"interrupts: {account(run)}",
        f"not counted: {plan.warm_up} before them, to warm up",
    ]
    if run.cut_short:
        lines.append(f"cut short after {run.edges} of {plan.count}: {run.cut_short}")
    if report.is_simulated:
        lines.append("a simulated port: no hardware is in these figures")
    return [escape(line) for line in lines]


def _statistics_table(columns: Mapping[str, Summary | None]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("us\n", no_wrap=True)
    for name in columns:
        first, _, rest = name.partition(" ")  # on two lines, or the four of them are wider than a terminal
        table.add_column(f"{first}\n{rest}", justify="right", no_wrap=True)
    for member, name in STATISTICS.items():
        table.add_row(name, *(cell(each, member) for each in columns.values()))
    return table


def cell(summary: Summary | None, member: str, unknown: str = "-") -> str:
    """A number of a summary in µs; `unknown` where there is none."""
    value = None if summary is None else getattr(summary, member)
    return unknown if value is None else f"{value:.1f}"


def histogram_lines(buckets: Iterable[Bucket], bar: str = "█") -> list[str]:
    """A line for each bucket; one that is not empty has a bar of a character at the least."""
    listed = list(buckets)
    most = max(bucket.count for bucket in listed)
    return [
        f"{bucket.low_us:>10.1f} .. {bucket.high_us:>9.1f} {bucket.count:>8} "
        f"{bar * -(-bucket.count * _BAR_CHARACTERS // most)}".rstrip()
        for bucket in listed
    ]


# For programs


def as_map(report: Report) -> dict[str, Any]:
    """The run as JSON has it: times in µs, what is not known is null."""
    run, plan = report.run, report.plan
    times = {
        f"{name.replace(' ', '_')}_us": None if summary is None else _without_count(summary)
        for name, summary in summaries(run).items()
    }
    return {
        "samples": len(run.samples),
        "count": plan.count,
        "warm_up": plan.warm_up,
        "interval_s": plan.interval_s,
        "line": report.line,
        **times,
        "edges": run.edges,
        "missing": run.missing,
        "merged": run.merged,
        "strays": run.strays,
        "told_lost": run.told_lost,
        "marks": run.marks,
        "cut_short": run.cut_short,
        "url": report.url,
        "port": report.port,
        "kind": report.kind,
        "server": report.server,
        "date": report.date,
        "client_machine": dict(report.facts),
    }


def _without_count(summary: Summary) -> dict[str, float | None]:
    values = ((member, getattr(summary, member)) for member in STATISTICS)
    return {member: None if value is None else round(value, 3) for member, value in values}


def write_csv(run: Run, file: TextIO) -> None:
    """A row for each sample. A number that is left out of `index` is an edge without a sample.

    `sent_ns` is the client's clock. Where clocks cannot be compared, the parts that would need it are empty.
    """
    samples = run.samples
    not_known = [""] * len(samples)
    columns: tuple[Iterable[object], ...] = (
        samples.indexes,
        samples.sent_ns,
        samples.round_trip_ns,
        samples.client_to_line_ns if run.has_one_clock else not_known,
        samples.line_to_interrupt_ns,
        samples.interrupt_to_client_ns if run.has_one_clock else not_known,
    )
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(_CSV_HEADER)
    rows.writerows(zip(*columns, strict=True))
