"""The job that runs on a port, and the requests of its owner that wait behind it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from lpt_service.core import effects as fx
from lpt_service.core.jobs import Job
from lpt_service.core.requests import ControlRequest, SessionState
from lpt_service.protocol.errors import PortError, PortGoneError, RequestError
from lpt_service.protocol.status import Status

if TYPE_CHECKING:
    from lpt_service.core.function_driver import FunctionDriver


class JobRunner:
    """One job at a time, and what waits behind it, in order.

    Attributes:
        running: the job, or None.
    """

    def __init__(self, driver: FunctionDriver) -> None:
        self.running: Job | None = None
        self._driver = driver
        self._behind: deque[ControlRequest] = deque()

    def belong_to(self, session: SessionState) -> bool:
        """True while a job of `session` runs."""
        return self.running is not None and self.running.request.session is session

    def append(self, request: ControlRequest) -> None:
        """Let a request wait behind the job of its session."""
        self._behind.append(request)

    def start(self, job: Job) -> None:
        """Begin a job of the owner; its later requests that need the port wait behind it. May raise PortError."""
        job.begin()
        driver = self._driver
        driver.deadlines.cancel(job.request.deadline)  # a time-out is for waiting, and it waits no longer
        job.request.session.pending[job.request.msgid] = job.request
        self.running = job
        driver.effects.append(fx.StartJob(job))

    def advance(self, job: Job, now_ns: int) -> bool:
        """Take the next step of a job that is due; True when it is over."""
        if self.running is not job:
            return True
        driver = self._driver
        try:
            output = job.advance()
        except PortGoneError as exc:
            driver.begin_removal(str(exc), now_ns)
            return True
        except PortError as exc:
            self._end(job, now_ns)
            driver.fail(job.request, RequestError(Status.STATUS_IO_DEVICE_ERROR, str(exc)))
        else:
            if output is None:
                return False
            self._end(job, now_ns)
            driver.complete(job.request, output)
        self._run_behind(now_ns)
        return True

    def abandon(self, request: ControlRequest, error: RequestError, now_ns: int) -> bool:
        """End a request early, if it is the job or waits behind it; False if it is neither."""
        if self.running is not None and self.running.request is request:
            self.cut(error, now_ns)
            self._run_behind(now_ns)
        elif request in self._behind:
            self._behind.remove(request)
            self._driver.fail(request, error)
        else:
            return False
        return True

    def cut(self, error: RequestError, now_ns: int) -> None:
        """End the running job early, and properly. What waits behind it is the caller's to look after."""
        driver, job = self._driver, self.running
        assert job is not None
        driver.effects.append(fx.StopJob(job))
        gone: PortGoneError | None = None
        try:
            job.cut()
        except PortGoneError as exc:
            gone = exc
        except PortError:
            driver.arbiter.is_safe = False
        self._end(job, now_ns)
        if gone is not None:
            driver.begin_removal(str(gone), now_ns)
        driver.fail(job.request, error)

    def _end(self, job: Job, now_ns: int) -> None:
        self.running = None
        self._driver.ownership.written += job.written
        self._driver.leases.job_ended(now_ns)

    def _run_behind(self, now_ns: int) -> None:
        """Begin what waited behind the job, in order, until another job begins."""
        driver = self._driver
        while self._behind and self.running is None:
            request = self._behind.popleft()
            try:
                output = driver.begin(request, now_ns)
            except RequestError as error:
                driver.fail(request, error)
            else:
                if output is not None:
                    driver.complete(request, output)
