"""
The threads in which handlers and WSGI applications run.

Twisted's pool wakes a thread for each job and waits for ever at the end.  In this one a job that blocks
delays no other, quick jobs share the threads that are awake, and a job that never returns is named and
left behind.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Lock, Thread
from typing import Any, Protocol

from twisted.internet.task import deferLater

from txrealtime.logs import Logger

__all__ = ["Jobs", "Leftovers", "Pool", "Threads"]

Leftovers = Callable[[], Callable[[], object] | None]
"""A function that tells what a job has left behind in its thread: work for this thread alone, or none."""

_log = Logger()


class Jobs(Protocol):
    """An object that runs jobs: a :class:`Pool`, or its double in a test."""

    def submit(self, name: str, job: Callable[[], object]) -> None:
        """Have a job run; the job does not raise."""


class _Worker:
    """A thread and its job."""

    __slots__ = ("job", "since", "thread", "wake")

    def __init__(self) -> None:
        self.wake = Lock()
        self.wake.acquire()
        self.job: str | None = None
        self.since = 0.0
        self.thread: Thread | None = None


class Pool:
    """
    A pool of up to `size` threads, started on demand.

    At most one thread at a time is on its way to look for a job.  If it finds one and more are waiting, it
    sends the next thread on its way before it begins: so handlers that block are soon in threads of
    their own, and the few threads that are awake do the short ones.  To wake one thread per job would cost
    a change of threads for each, and most would find nothing left.

    :param size: the most threads.
    :param name: the first part of the threads' names, for logs and debuggers.
    :param leftovers: called after each job.  If the job has left work behind, its thread leaves the pool,
        does the work, and ends; another thread takes its place.
    """

    def __init__(self, size: int, name: str = "handler", leftovers: Leftovers | None = None) -> None:
        self.size = size
        self._name = name
        self._leftovers = leftovers
        self._jobs: deque[tuple[str, Callable[[], object]]] = deque()
        self._lock = Lock()
        self._idle: list[_Worker] = []
        self._workers: list[_Worker] = []
        # Threads that are awake and have no job yet.
        self._searching = 0
        self._stopping = False
        # The log has been told that the system refuses more threads.
        self._short = False

    def submit(self, name: str, job: Callable[[], object]) -> None:
        """
        Have a job run in one of the threads; jobs begin in the order of the calls.

        :param name: the job's name, for the log.
        """
        self._jobs.append((name, job))
        if not self._searching:
            with self._lock:
                self._send()

    def _send(self) -> None:
        """Send a thread on its way if jobs wait and no thread looks for one.  The lock must be held."""
        if self._searching or not self._jobs:
            return
        if self._idle:
            self._searching += 1
            self._idle.pop().wake.release()
        elif len(self._workers) < self.size:
            self._searching += 1
            worker = _Worker()
            self._workers.append(worker)
            worker.thread = Thread(
                target=self._work, args=(worker,), name=f"{self._name}-{len(self._workers)}", daemon=True
            )
            try:
                worker.thread.start()
            except RuntimeError:
                self._searching -= 1
                self._workers.remove(worker)
                if not self._short:
                    count = len(self._workers)
                    _log.failure("no thread for {name}s beyond {count}", name=self._name, count=count)
                self._short = True
            else:
                self._short = False

    def _work(self, worker: _Worker) -> None:
        jobs, lock = self._jobs, self._lock
        while True:
            with lock:
                # Until here this thread was one of those that search.
                self._searching -= 1
                try:
                    name, job = jobs.popleft()
                except IndexError:
                    if self._stopping:
                        self._workers.remove(worker)
                        return
                    self._idle.append(worker)
                    job = None
                else:
                    worker.job, worker.since = name, time.monotonic()
                    self._send()
            if job is None:
                worker.wake.acquire()
                continue
            try:
                job()
            except BaseException:
                _log.failure("{job} failed", job=name)
            del job
            worker.job = None
            if self._leftovers is not None and (work := self._leftovers()) is not None:
                with lock:
                    self._workers.remove(worker)
                    self._send()
                work()
                return
            with lock:
                self._searching += 1

    @property
    def busy(self) -> list[tuple[str, str, float]]:
        """The busy threads: each one's name, its job's, and the seconds since the job began."""
        now = time.monotonic()
        with self._lock:
            return [
                (worker.thread.name, worker.job, now - worker.since)
                for worker in self._workers
                if worker.job is not None and worker.thread is not None
            ]

    @property
    def states(self) -> dict[str, int]:
        """See :attr:`Threads.states`."""
        busy = len(self.busy)
        return {"busy": busy, "idle": len(self._workers) - busy, "waiting": len(self._jobs)}

    @property
    def isDone(self) -> bool:
        """True when all jobs have been done."""
        return not self._jobs and not self.busy

    def stop(self) -> None:
        """Let idle threads end now, and the others after their jobs."""
        with self._lock:
            self._stopping = True
            idle, self._idle = self._idle, []
            self._searching += len(idle)
        for worker in idle:
            worker.wake.release()


class Threads:
    """
    A pool that can be drained and restarted with its server.

    :param size: the most threads.
    :param name: the first part of the threads' names.
    :param leftovers: see :class:`Pool`.
    """

    def __init__(self, size: int, name: str = "handler", leftovers: Leftovers | None = None) -> None:
        self.size = size
        self._name = name
        self._leftovers = leftovers
        self._pool = Pool(size, name, leftovers)

    def submit(self, name: str, job: Callable[[], object]) -> None:
        self._pool.submit(name, job)

    @property
    def states(self) -> dict[str, int]:
        """The numbers of ``busy`` and ``idle`` threads, and of jobs ``waiting`` for one."""
        return self._pool.states

    def restart(self) -> None:
        """Take jobs again after :meth:`drain`."""
        self._pool = Pool(self.size, self._name, self._leftovers)

    async def drain(self, reactor: Any, timeout: float) -> None:
        """Wait for running jobs, `timeout` seconds at most, and log those that have not ended."""
        pool, deadline = self._pool, reactor.seconds() + timeout
        while not pool.isDone and reactor.seconds() < deadline:
            await deferLater(reactor, 0.02)
        for thread, job, seconds in pool.busy:
            _log.warn(
                "{thread} is left behind: {job} has run for {seconds:.1f} s. Give each wait in a thread a "
                "timeout, or raise drainTimeout, the seconds that a stopping server waits for jobs",
                thread=thread,
                job=job,
                seconds=seconds,
            )
        pool.stop()
