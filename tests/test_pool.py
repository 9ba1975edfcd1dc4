from __future__ import annotations

import threading
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from txrealtime.pool import Pool

PATIENCE = 30
"Seconds; nobody waits so long unless the test fails."


class PoolTests(SynchronousTestCase):
    def makePool(self, size: int) -> Pool:
        pool = Pool(size)
        self.addCleanup(pool.stop)
        return pool

    def test_blockedJobsHoldUpNobody(self) -> None:
        """Each of them has a thread, up to the size of the pool."""
        pool, go = self.makePool(5), threading.Event()
        self.addCleanup(go.set)
        everybody = threading.Barrier(5)
        for _ in range(4):
            pool.submit("wait", lambda: everybody.wait(PATIENCE))
        everybody.wait(PATIENCE)  # which they do only if all four run at a time
        self.assertFalse(everybody.broken)

    def test_noMoreThreadsThanItsSize(self) -> None:
        pool, go, done = self.makePool(2), threading.Event(), threading.Semaphore(0)
        names: set[str] = set()

        def job() -> None:
            names.add(threading.current_thread().name)
            go.wait(PATIENCE)
            done.release()

        for _ in range(20):
            pool.submit("job", job)
        go.set()
        for _ in range(20):
            self.assertTrue(done.acquire(timeout=PATIENCE))
        self.assertLessEqual(names, {"handler-1", "handler-2"})

    def test_inOrder(self) -> None:
        pool, done = self.makePool(1), threading.Event()
        seen: list[int] = []
        for number in range(100):
            pool.submit("count", lambda number=number: seen.append(number))
        pool.submit("end", done.set)
        self.assertTrue(done.wait(PATIENCE))
        self.assertEqual(seen, list(range(100)))

    def test_aJobThatRaises(self) -> None:
        """A failing job is logged, and its thread goes on: also after SystemExit, as handlers raise it."""
        pool, done = self.makePool(1), threading.Event()

        def fail(error: BaseException) -> Callable[[], None]:
            def job() -> None:
                raise error

            return job

        pool.submit("bad", fail(ValueError()))
        pool.submit("worse", fail(SystemExit()))
        pool.submit("good", done.set)
        self.assertTrue(done.wait(PATIENCE))
        self.assertEqual(len(self.flushLoggedErrors(ValueError, SystemExit)), 2)

    def test_noThreadToBeHad(self) -> None:
        """A job for which no thread can be started waits for one of the others."""
        pool, go, done = self.makePool(2), threading.Event(), threading.Semaphore(0)
        self.addCleanup(go.set)
        pool.submit("first", lambda: go.wait(PATIENCE) and done.release())
        while pool._searching:  # until it has begun
            threading.Event().wait(0.001)

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        self.patch(threading.Thread, "start", refuse)
        for _ in range(3):
            pool.submit("next", done.release)
        go.set()
        for _ in range(4):
            self.assertTrue(done.acquire(timeout=PATIENCE))
        pool.submit("later", done.release)
        self.assertTrue(done.acquire(timeout=PATIENCE))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_manyProducers(self) -> None:
        """No job is lost when threads of their own submit and go to sleep between."""
        pool, done = self.makePool(4), threading.Semaphore(0)

        def produce() -> None:
            for _ in range(500):
                pool.submit("job", done.release)

        producers = [threading.Thread(target=produce) for _ in range(4)]
        for producer in producers:
            producer.start()
        for _ in range(2000):
            self.assertTrue(done.acquire(timeout=PATIENCE))
        for producer in producers:
            producer.join(PATIENCE)

    def test_leftovers(self) -> None:
        """A job's thread does the work that the job has left, outside of the pool, and ends."""
        local, go, done = threading.local(), threading.Event(), threading.Semaphore(0)
        at: list[threading.Thread] = []

        def work() -> None:
            at.append(threading.current_thread())
            done.release()
            go.wait(PATIENCE)

        def leftovers() -> Callable[[], object] | None:
            return getattr(local, "work", None)

        def job() -> None:
            local.work = work
            at.append(threading.current_thread())

        pool = Pool(1, "view", leftovers)
        self.addCleanup(pool.stop)
        pool.submit("job", job)
        self.assertTrue(done.acquire(timeout=PATIENCE))
        self.assertIs(at[0], at[1])
        self.assertEqual(pool.states, {"busy": 0, "idle": 0, "waiting": 0})
        # The pool has a thread again for the next job, although it is full with one.
        pool.submit("next", lambda: (at.append(threading.current_thread()), done.release()))
        self.assertTrue(done.acquire(timeout=PATIENCE))
        self.assertIsNot(at[2], at[0])
        go.set()
        at[0].join(PATIENCE)
        self.assertFalse(at[0].is_alive())

    def test_leftoversWhileJobsWait(self) -> None:
        """Jobs that wait for a thread do not wait for the work of another job."""
        go, done = threading.Event(), threading.Semaphore(0)
        begin = threading.Event()
        self.addCleanup(go.set)
        pool = Pool(1, "view", lambda: lambda: go.wait(PATIENCE))
        pool.submit("first", lambda: begin.wait(PATIENCE))
        pool.submit("second", done.release)
        begin.set()
        self.assertTrue(done.acquire(timeout=PATIENCE))

    def test_busyAndStop(self) -> None:
        """A pool names its busy threads; stopped, they end after their jobs."""
        pool, begun, go = Pool(2), threading.Event(), threading.Event()
        thread: list[threading.Thread] = []

        def job() -> None:
            thread.append(threading.current_thread())
            begun.set()
            go.wait(PATIENCE)

        pool.submit("/ 'long'", job)
        self.assertTrue(begun.wait(PATIENCE))
        ((name, what, seconds),) = pool.busy
        self.assertEqual((name, what), ("handler-1", "/ 'long'"))
        self.assertGreaterEqual(seconds, 0)
        self.assertFalse(pool.isDone)
        pool.stop()
        go.set()
        thread[0].join(PATIENCE)
        self.assertFalse(thread[0].is_alive())
        self.assertTrue(pool.isDone)
