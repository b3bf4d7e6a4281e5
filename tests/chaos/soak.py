"""Everything at once, for long: `make soak`, thirty minutes, or SOAK_S seconds.

python -m tests.chaos.soak

Owners and listeners through the chaos proxy and by a Unix socket, who come back to their sessions, and lose the port by
leases; interrupts by themselves and by the plug, hostile connections, clients that are killed, reloads, drains, and an
administrator who takes the port away, pauses it and ends sessions; the audit trail. Meanwhile what the daemon takes is
sampled: memory, descriptors, threads. Its tasks it does not tell; each session is a task or two and one descriptor:
what stays behind shows as descriptors, or as memory. At the end: the invariants of test_chaos.py, what the audit trail
says, and nothing has grown. The daemon is not started anew, for then nothing would grow; test_chaos.py does that.
"""

from __future__ import annotations

import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lpt_client import blocking
from lpt_client.errors import InvalidParameter
from tests.chaos import audit_check, settings
from tests.chaos.clients import blocking_listener, blocking_owner
from tests.chaos.hostile import Crowd
from tests.chaos.processes import MIB, Usage, usage
from tests.chaos.terms import AUDIT_BYTES, AUDIT_KEEP, Terms
from tests.chaos.trio_clients import trio_crowd
from tests.chaos.world import World
from tests.e2e.daemons import PROJECT
from tests.ended import end_in_order

HOSTILE = 100
# Between the first third of the samples (after a tenth, in which things warm up) and the last.
WARM_UP_SAMPLES = 20  # at least, where there are enough
GROWTH_BYTES = 16 * MIB
GROWTH_DESCRIPTORS = HOSTILE  # how many are there at a time is chance, and the speed of the machine's
GROWTH_THREADS = 2
ROWS = 15
# Administrators come to the daemon directly: they are answered, however late.
open_patiently = partial(blocking.open_port, connect_timeout_s=120, reply_timeout_s=120)
VICTIMS = ("owning", "in a pulse", "mid-frame", "all at once", "connected", "before hello")


class Sample(NamedTuple):
    """What there was at a time."""

    at_s: float
    usage: Usage
    faults: int
    grants: int
    accounts: int


def reload_again_and_again(world: World, name: str) -> None:
    """SIGHUP, each time with another setting, and a listener that comes or goes."""
    chance, count = world.chance(name), 0
    while not world.is_over:
        count += 1
        world.config_path.write_text(world.terms.text(is_other=bool(count % 2)))
        world.daemon.signal(signal.SIGHUP)
        world.done["reloads"] += 1
        world.sleep(chance.uniform(1, 5))
    world.config_path.write_text(world.terms.text())
    world.daemon.signal(signal.SIGHUP)


def drain_again_and_again(world: World, name: str) -> None:
    """An administrator, who checks that nobody new is granted meanwhile."""
    chance = world.chance(name)
    url = f"lpt+unix://{world.terms.unix_socket}#LPT1"
    with open_patiently(url, client=name) as port:
        while not world.is_over:
            world.sleep(chance.uniform(1, 8))
            port.drain(True)
            before = port.status()["counters"]["grants"]
            world.sleep(chance.uniform(0.05, 0.5))
            assert port.status()["counters"]["grants"] == before, "granted while it was drained"
            port.drain(False)
            world.done["drains"] += 1


def administer_again_and_again(world: World, name: str) -> None:
    """An administrator of one port, who takes it away, pauses it, and ends sessions of its owner and of who waits."""
    chance = world.chance(name)
    port_name = name.split()[-1]
    with open_patiently(f"lpt+unix://{world.terms.unix_socket}#{port_name}", client=name) as port:
        while not world.is_over:
            world.sleep(chance.uniform(0.2, 3))
            match chance.randrange(4):
                case 0:
                    world.done["ports taken away"] += port.revoke("soak")["revoked"] is not None
                case 1:
                    _kick_somebody(world, chance, port)
                case 2:
                    _pause(world, chance, port)
                case 3:
                    places = [each["position"] for each in port.queue(2)["waiters"]]
                    assert places == [*range(2, 2 + len(places))]


def _kick_somebody(world: World, chance: random.Random, port: blocking.Port) -> None:
    queue = port.queue()
    there = [each["session"] for each in (queue["owner"], *queue["waiters"]) if each is not None]
    if there:
        try:
            port.kick(chance.choice(there), "soak")
        except InvalidParameter:  # it has ended by itself
            return
        world.done["sessions ended"] += 1


def _pause(world: World, chance: random.Random, port: blocking.Port) -> None:
    assert not port.pause("soak")["was"]
    before = port.status()
    assert (before["paused"], before["owner"]) == ("soak", None)
    world.sleep(chance.choices((chance.uniform(0, 0.3), 1.5), (9, 1))[0])  # the longer one outlasts the SDK's patience
    after = port.status()
    assert after["counters"]["grants"] == before["counters"]["grants"], "granted while it was paused"
    assert port.resume_port()["was"]
    world.done["pauses"] += 1


def kill_again_and_again(world: World, name: str) -> None:
    """Clients that are killed in whatever they do: a moment after they have begun, or as soon as they are there."""
    chance = world.chance(name)
    while not world.is_over:
        where = [*map(str, world.address), chance.choice(VICTIMS), chance.choice(world.terms.port_names())]
        with subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.victim", *where],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as victim:
            assert victim.stdout is not None
            select.select([victim.stdout], [], [], chance.uniform(0.2, 3))
            victim.kill()
        world.done["clients killed"] += 1
        world.sleep(chance.uniform(0.5, 3))


def take_samples(world: World, seconds: float) -> list[Sample]:
    """Until the time is up and clients have come back to their sessions, or something has gone wrong."""
    begun, samples = time.monotonic(), list[Sample]()
    while not world.is_over and ((at_s := time.monotonic() - begun) < seconds or not _has_come_back(world)):
        assert at_s < 10 * seconds, f"nobody has come back: {world.done}"
        assert world.daemon.process.poll() is None, f"the daemon has ended: {world.daemon.log()}"
        faults = world.tally().get("faults", 0)
        done = world.done
        samples.append(Sample(at_s, usage(world.daemon.process.pid), faults, done["grants"], done["accounts"]))
        if len(samples) % 60 == 0:
            print(_row(samples[-1]), file=sys.stderr, flush=True)
        world.sleep(1)
    return samples


def _has_come_back(world: World) -> bool:
    return min(world.done[f"came back: {had}"] for had in ("owning", "listening")) > 0


def soak(seconds: float, seed: int) -> str:
    """All of it; the report. Raises AssertionError, with the report in it."""
    with tempfile.TemporaryDirectory() as folder:
        terms = Terms(
            ports=3,
            silent_ports=1,
            short_logs=1,
            grace_s=1,
            max_hold_s=1,
            idle_hold_s=0.7,
            long_hold_s=1.2,
            is_administered=True,
            unix_socket=f"{folder}/s",
            folder=folder,
        )
        with World(terms, seed) as world:
            with Crowd(world.address, HOSTILE, seed, "LPT1") as crowd:
                _begin(world)
                samples = take_samples(world, seconds)
                world.stop()
            report = "\n".join([_table(samples), world.report(), f"hostile connections: {crowd.tally}"])
            try:
                world.check()
                _check_flat(samples)
            except BaseException:
                print(report)
                raise
            end = usage(world.daemon.process.pid)
        audit = check_audit(Path(folder))
    left = f"{end.rss_bytes / MIB:.1f} MiB, {end.descriptors} descriptors, {end.threads} threads"
    return f"{report}\n{audit}\nwhen all had gone: {left}"


def check_audit(folder: Path) -> str:
    """What `audit_check` has to say, and that its files keep to their bounds."""
    sizes = [path.stat().st_size for path in folder.glob("audit.jsonl*")]
    assert max(sizes) <= AUDIT_BYTES
    assert len(sizes) <= 1 + AUDIT_KEEP, "the oldest records are gone: let it keep more"
    return f"{audit_check.check(audit_check.read(folder))}; {len(sizes)} files, {sum(sizes) / MIB:.1f} MiB"


def _begin(world: World) -> None:
    for number in range(4):
        world.add(blocking_owner, f"owner {number}")
    for number in range(3):
        world.add(blocking_listener, f"listener {number}")
    world.add(partial(trio_crowd, owners=6, listeners=4), "trio")
    for run, name in ((reload_again_and_again, "reloader"), (drain_again_and_again, "administrator")):
        world.add(run, name)
    for name in world.terms.port_names():
        world.add(administer_again_and_again, f"administrator of {name}")
    world.add(kill_again_and_again, "killer")


def _check_flat(samples: list[Sample]) -> None:
    warm_up = max(len(samples) // 10, min(WARM_UP_SAMPLES, len(samples) // 3))
    settled = [sample.usage for sample in samples[warm_up:]]
    third = len(settled) // 3
    first, last = settled[:third], settled[-third:]

    def growth(of: int) -> float:
        return statistics.median(each[of] for each in last) - statistics.median(each[of] for each in first)

    rss, _, descriptors, threads = (growth(of) for of in range(4))
    assert rss < GROWTH_BYTES, f"memory has grown by {rss / MIB:.1f} MiB"
    assert descriptors < GROWTH_DESCRIPTORS, f"{descriptors} descriptors more"
    assert threads <= GROWTH_THREADS, f"{threads} threads more"


def _row(sample: Sample) -> str:
    took = sample.usage
    return (
        f"{sample.at_s:7.0f} {took.rss_bytes / MIB:9.1f} {took.peak_bytes / MIB:9.1f} {took.descriptors:12} "
        f"{took.threads:8} {sample.faults:8} {sample.grants:8} {sample.accounts:9}"
    )


def _table(samples: list[Sample]) -> str:
    shown = [samples[place * (len(samples) - 1) // (ROWS - 1)] for place in range(ROWS)] if samples else []
    header = "      s       MiB  peak MiB  descriptors  threads   faults   grants  accounts"
    return "\n".join([header, *map(_row, dict.fromkeys(shown))])


def main() -> None:
    """As said above."""
    end_in_order()
    seconds = settings.number("SOAK_S", 1800)
    print(f"{seconds:.0f} s", flush=True)
    print(soak(seconds, settings.seed()))
    print("soak: all is well")


if __name__ == "__main__":
    main()
