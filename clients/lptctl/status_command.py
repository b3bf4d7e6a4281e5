"""lptctl status: who owns the port, who waits, who listens."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from lptctl import outcome, signals
from lptctl.common import Seconds, open_port, session_options, to_json, url_option
from lptctl.describe import duration, since, who, whole
from lptctl.outcome import escape

if TYPE_CHECKING:
    from lpt_client import blocking

_SHORTEST_INTERVAL_S = 0.05


@click.command(epilog=outcome.HELP)
@click.option("--json", "as_json", is_flag=True, help="Print the daemon's answer as JSON; with --watch one line each.")
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=Seconds(_SHORTEST_INTERVAL_S),
    default=0.5,
    show_default=True,
    metavar="S",
    help="With --watch: seconds between two looks.",
)
@url_option
def status(as_json: bool, watch: bool, interval: float, url: str) -> None:
    """Show the port: its owner, queue, registrations and counters.

    With --watch a connection that breaks is made anew, for as long as it takes.

    \b
    Examples:
      lptctl status
      lptctl status --watch --interval 2
      lptctl status --json | jq .owner.client
    """
    if watch:
        _watch(url, interval, as_json)
    with open_port(url, "status") as port:
        report = port.status()
    click.echo(to_json(report, indent=2) if as_json else render(report))


def _watch(url: str, interval_s: float, as_json: bool) -> None:
    from lpt_client import blocking

    is_live = sys.stdout.isatty() and not as_json
    if is_live:
        import rich.live  # noqa: F401 - before a signal is to end it in order
    signals.end_in_order()
    with blocking.open_port(url, reconnect=True, **session_options("status")) as port:
        if is_live:
            _show_live(_reports(port, interval_s))
        for report, text in _reports(port, interval_s):
            click.echo(to_json(report or {"error": text}) if as_json else f"{text}\n")


def _show_live(reports: Iterator[tuple[dict[str, Any] | None, str]]) -> None:
    """Each report in the place of the one before."""
    from rich.live import Live  # takes longer to load than all the rest
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        for _, text in reports:
            live.update(Text(text), refresh=True)  # Text: a client's name is no markup


def _reports(port: blocking.Port, interval_s: float) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """What the daemon answers and that as text, again and again; None and the reason while it cannot be reached."""
    from lpt_client.errors import ConnectionLost

    while True:
        try:
            report = port.status()
        except ConnectionLost as lost:
            yield None, escape(f"not connected: {lost.reason}; trying again")
            port.wait_connected()
            continue
        yield report, render(report)
        time.sleep(interval_s)


def render(report: Mapping[str, Any]) -> str:
    """The report as text. A daemon of another version may know more or less: what is not there is left out."""
    now_ns = whole(report.get("monotonic_ns"))
    lines = [_headline(report)]
    if report.get("paused") is not None:
        lines.append(_line("paused", f"{report['paused'] or 'no reason was given'}; nobody is granted the port"))
    if report.get("draining"):
        lines.append(_line("draining", "nobody new is granted"))
    lines.append(_owner_line(report.get("owner"), now_ns))
    lines += _lease_lines(report.get("lease"), now_ns)
    lines += _list_lines("waiting", report.get("waiting"), report.get("waiters"), lambda each: _waiter(each, now_ns))
    lines += _list_lines("registered", report.get("registered"), report.get("registrations"), _registration)
    lines += _interrupt_lines(report.get("interrupts"))
    counters = report.get("counters")
    if isinstance(counters, Mapping):
        lines.append(_line("counters", ", ".join(f"{name} {value}" for name, value in counters.items())))
    return "\n".join(escape(line) for line in lines)


def _line(title: str, text: str) -> str:
    return f"{title:<12}{text}"


def _headline(report: Mapping[str, Any]) -> str:
    kind = f" ({report['kind']})" if "kind" in report else ""
    why = f": {report['why_absent']}" if report.get("why_absent") else ""
    up = f", up {duration(whole(report['uptime_ns']))}" if "uptime_ns" in report else ""
    away = f" ({report['away']} away)" if report.get("away") else ""
    sessions = f", sessions {report['sessions']}{away}" if "sessions" in report else ""
    where = f"{report.get('server', 'daemon of unknown kind')}{up}{sessions}"
    return _line(str(report.get("port", "port")), f"{report.get('state', 'in unknown state')}{kind}{why}; {where}")


def _owner_line(owner: Any, now_ns: int) -> str:
    if not isinstance(owner, Mapping):
        return _line("owner", "nobody")
    grant = f", grant {owner['grant']}" if "grant" in owner else ""
    return _line("owner", f"{who(owner)}{_for(owner, now_ns)}{grant}")


def _lease_lines(lease: Any, now_ns: int) -> list[str]:
    """What an owner may do, and when the present one would lose the port if nothing changed."""
    if not isinstance(lease, Mapping):
        return []
    limits = (("max_hold_s", "while others wait"), ("idle_hold_s", "without using the port"))
    texts = [f"at most {lease[key]:g} s {what}" for key, what in limits if _is_time(lease.get(key))]
    if _is_time(lease.get("warning_s")):
        texts.append(f"warned {lease['warning_s']:g} s before")
    expires_ns = lease.get("expires_ns")
    if isinstance(expires_ns, int):
        texts.append(f"the owner loses the port in {duration(max(0, expires_ns - now_ns))}")
    return [_line("lease", ", ".join(texts))] if texts else []


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _list_lines(title: str, total: Any, listed: Any, show: Callable[[Mapping[str, Any]], str]) -> list[str]:
    shown = [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, (tuple, list)) else []
    count = total if isinstance(total, int) else len(shown)
    lines = [_line(title, str(count) if count else "nobody")]
    lines += [_line("", show(each)) for each in shown]
    if count > len(shown) and shown:
        lines.append(_line("", f"and {count - len(shown)} more"))
    return lines


def _waiter(waiter: Mapping[str, Any], now_ns: int) -> str:
    return f"{waiter.get('position', '?')}. {who(waiter)}{_for(waiter, now_ns)}"


def _registration(registration: Mapping[str, Any]) -> str:
    kinds = (("interrupt", "interrupts"), ("deferred", "port checks"))
    hears = " and ".join(text for key, text in kinds if registration.get(key))
    return f"{who(registration)}: {hears or 'nothing'}"


def _interrupt_lines(interrupts: Any) -> list[str]:
    if not isinstance(interrupts, Mapping):
        return []
    texts = {
        "enabled": ("may be connected", "disabled by configuration"),
        "connected": ("heard", "not heard"),
        "masked": ("masked by the storm guard", ""),
        "lingering": ("lingering for a client that vanished", ""),
    }
    state = ", ".join(filter(None, (texts[key][not interrupts[key]] for key in texts if key in interrupts)))
    counts = ("generated", "stray", "masks")
    numbers = ", ".join(f"{key} {interrupts[key]}" for key in counts if key in interrupts)
    return [_line("interrupts", "; ".join(filter(None, (state, numbers))))]


def _for(session: Mapping[str, Any], now_ns: int) -> str:
    passed = since(session, now_ns)
    return f" for {passed}" if passed else ""
