"""
The threads in which handlers and WSGI applications run.

A pool of its own, because what is said of it must hold: a job that blocks holds up none of the
others, quick ones do not wake a thread each, and one that never returns is named and left behind.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Lock, Thread
from typing import Any, Protocol

from twisted.internet.task import deferLater

from txrealtime.logs import Logger

__all__ = ["Jobs", "Pool", "Threads"]

_log = Logger()


class Jobs(Protocol):
    """An object that runs jobs: a :class:`Pool`, or its double in a test."""

    def submit(self, name: str, job: Callable[[], object]) -> None:
        """Have a job run.  It does not raise."""


class _Worker:
    """One thread, and what it does."""

    __slots__ = ("job", "since", "thread", "wake")

    def __init__(self) -> None:
        self.wake = Lock()
        self.wake.acquire()
        self.job: str | None = None
        self.since = 0.0
        self.thread: Thread | None = None


class Pool:
    """
    Up to `size` threads, started when they are needed.

    At most one thread at a time is on its way to look for a job.  When it has found one and there are
    more, it sends the next on its way before it begins: so handlers that block are soon in threads of
    their own, while short ones are done by the few threads that are awake.  To wake one thread per job
    costs a change of threads for each, and most would find nothing left.

    :param size: the most threads.
    :param name: what they are called, for logs and debuggers.
    """

    def __init__(self, size: int, name: str = "handler") -> None:
        self.size = size
        self._name = name
        self._jobs: deque[tuple[str, Callable[[], object]]] = deque()
        self._lock = Lock()
        self._idle: list[_Worker] = []
        self._workers: list[_Worker] = []
        # How many are awake and have no job yet.
        self._searching = 0
        self._stopping = False
        # Whether the last thread could not be had, which the log has been told.
        self._short = False

    def submit(self, name: str, job: Callable[[], object]) -> None:
        """
        Have a job run in one of the threads, in the order of the calls as far as there are threads.

        :param name: what it is, for the log.
        """
        self._jobs.append((name, job))
        if not self._searching:
            with self._lock:
                self._send()

    def _send(self) -> None:
        """Send a thread on its way, if there are jobs and nobody is.  With the lock held."""
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
                # Here it is one of those who search.
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
            with lock:
                self._searching += 1

    @property
    def busy(self) -> list[tuple[str, str, float]]:
        """The threads that are at work: the name, the job's, and the seconds since it began."""
        now = time.monotonic()
        with self._lock:
            return [
                (worker.thread.name, worker.job, now - worker.since)
                for worker in self._workers
                if worker.job is not None and worker.thread is not None
            ]

    @property
    def isDone(self) -> bool:
        """True when all jobs have been done."""
        return not self._jobs and not self.busy

    def stop(self) -> None:
        """Let the threads end: those that are idle now, the others after their jobs."""
        with self._lock:
            self._stopping = True
            idle, self._idle = self._idle, []
            self._searching += len(idle)
        for worker in idle:
            worker.wake.release()


class Threads:
    """
    A pool for as long as something serves.

    :param size: the most threads.
    :param name: what they are called.
    """

    def __init__(self, size: int, name: str = "handler") -> None:
        self.size = size
        self._name = name
        self._pool = Pool(size, name)

    def submit(self, name: str, job: Callable[[], object]) -> None:
        self._pool.submit(name, job)

    def restart(self) -> None:
        """Take jobs again after :meth:`drain`."""
        self._pool = Pool(self.size, self._name)

    async def drain(self, reactor: Any, timeout: float) -> None:
        """Wait for the jobs that run; name those that do not end."""
        pool, deadline = self._pool, reactor.seconds() + timeout
        while not pool.isDone and reactor.seconds() < deadline:
            await deferLater(reactor, 0.02)
        for thread, job, seconds in pool.busy:
            _log.warn(
                "{thread} is left behind: {job} has run for {seconds:.1f} s. What waits for something in a "
                "thread should give up when the server stops; drainTimeout says how long it is waited for",
                thread=thread,
                job=job,
                seconds=seconds,
            )
        pool.stop()
