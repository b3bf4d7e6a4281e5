"""lptctl status: who owns the port, who waits, who listens."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from lptctl import outcome
from lptctl.common import Seconds, addresses_checked, open_port, session_options, to_json, url_option
from lptctl.outcome import escape

if TYPE_CHECKING:
    from lpt_client import blocking

_SHORTEST_INTERVAL_S = 0.05


@click.command(epilog=outcome.HELP)
@click.option("--json", "as_json", is_flag=True, help="Print the daemon's answer as JSON; with --watch one line each.")
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C (exit code 0).")
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
        try:
            _watch(url, interval, as_json)
        except KeyboardInterrupt:
            return
    with open_port(url, "status") as port:
        report = port.status()
    click.echo(to_json(report, indent=2) if as_json else render(report))


def _watch(url: str, interval_s: float, as_json: bool) -> None:
    from lpt_client import blocking

    with addresses_checked(url):
        port = blocking.open_port(url, reconnect=True, **session_options("status"))
    with port:
        if sys.stdout.isatty() and not as_json:
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
    now_ns = _int(report.get("monotonic_ns"))
    lines = [_headline(report), _owner_line(report.get("owner"), now_ns)]
    if report.get("draining"):
        lines.append(_line("draining", "nobody new is granted"))
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
    up = f", up {_duration(_int(report['uptime_ns']))}" if "uptime_ns" in report else ""
    sessions = f", sessions {report['sessions']}" if "sessions" in report else ""
    where = f"{report.get('server', 'daemon of unknown kind')}{up}{sessions}"
    return _line(str(report.get("port", "port")), f"{report.get('state', 'in unknown state')}{kind}{why}; {where}")


def _owner_line(owner: Any, now_ns: int) -> str:
    if not isinstance(owner, Mapping):
        return _line("owner", "nobody")
    grant = f", grant {owner['grant']}" if "grant" in owner else ""
    return _line("owner", f"{_who(owner)}{_since(owner, now_ns)}{grant}")


def _list_lines(title: str, total: Any, listed: Any, show: Callable[[Mapping[str, Any]], str]) -> list[str]:
    shown = [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, (tuple, list)) else []
    count = total if isinstance(total, int) else len(shown)
    lines = [_line(title, str(count) if count else "nobody")]
    lines += [_line("", show(each)) for each in shown]
    if count > len(shown) and shown:
        lines.append(_line("", f"and {count - len(shown)} more"))
    return lines


def _waiter(waiter: Mapping[str, Any], now_ns: int) -> str:
    return f"{waiter.get('position', '?')}. {_who(waiter)}{_since(waiter, now_ns)}"


def _registration(registration: Mapping[str, Any]) -> str:
    kinds = (("interrupt", "interrupts"), ("deferred", "port checks"))
    hears = " and ".join(text for key, text in kinds if registration.get(key))
    return f"{_who(registration)}: {hears or 'nothing'}"


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


def _who(session: Mapping[str, Any]) -> str:
    peer = f", {session['peer']}" if session.get("peer") else ""
    return f"{session.get('client') or 'unnamed'} (session {session.get('session', '?')}{peer})"


def _since(session: Mapping[str, Any], now_ns: int) -> str:
    since_ns = _int(session.get("since_ns"))
    return f" for {_duration(now_ns - since_ns)}" if now_ns >= since_ns > 0 else ""


def _int(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _duration(duration_ns: int) -> str:
    seconds = duration_ns / 1e9
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds_left = divmod(int(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    if days:
        return f"{days} d {hours_left} h"
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {seconds_left} s"
