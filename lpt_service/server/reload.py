"""What of a new configuration can be had while the daemon runs."""

from __future__ import annotations

from lpt_service.config import Config

_PORT_KEYS = ("device", "interrupt_log_frames", "loopback", "pulse_hz")


def needing_restart(old: Config, new: Config) -> list[str]:
    """What differs and cannot be changed now, a line each."""
    lines: list[str] = []
    if new.server.state_directory != old.server.state_directory:
        lines.append("server.state_directory needs a restart")
    before = {port.name: port for port in old.port}
    after = {port.name: port for port in new.port}
    lines += [f"port {name} is new, and needs a restart" for name in after if name not in before]
    lines += [f"port {name} is not named any more, and stays until a restart" for name in before if name not in after]
    for name in before.keys() & after.keys():
        for key in _PORT_KEYS:
            if getattr(before[name], key) != getattr(after[name], key):
                lines.append(f"{key} of port {name} needs a restart")
    return sorted(lines)


def merged(old: Config, new: Config) -> Config:
    """The configuration in force after a reload: the new one, with what cannot be changed as it was."""
    after = {port.name: port for port in new.port}
    ports = tuple(
        after[port.name].model_copy(update={key: getattr(port, key) for key in _PORT_KEYS})
        if port.name in after
        else port
        for port in old.port
    )
    server = new.server.model_copy(update={"state_directory": old.server.state_directory})
    return new.model_copy(update={"server": server, "port": ports})
