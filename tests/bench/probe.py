"""Writes at a steady pace, each on a connection of its own, whatever became of the
ones before: an open loop, so that a write that hangs does not hide the moment at
which others succeed again."""
import asyncio
import dataclasses
import threading
import time


@dataclasses.dataclass
class Write:
    sent: float          # time.monotonic()
    acked: float = None  # None: no answer that counts
    error: str = None


class Prober:
    """make(n) gives (address, port, path, body) of the n-th write; ok(body) tells if
    the answer acknowledges it."""

    def __init__(self, make, ok, every=0.01, timeout=5.0):
        self.make, self.ok, self.every, self.timeout = make, ok, every, timeout
        self.writes = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._end.set()
        self._thread.join()

    async def _exchange(self, address, port, path, body):
        reader, writer = await asyncio.open_connection(address, port)
        try:
            writer.write(f"POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n"
                         "Content-Type: application/json\r\n"
                         f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            return await reader.read()
        finally:
            writer.close()

    async def _write(self, w, n):
        try:
            answer = await asyncio.wait_for(self._exchange(*self.make(n)), self.timeout)
            if self.ok(answer):
                w.acked = time.monotonic()
            else:
                w.error = answer[-200:].decode(errors="replace")
        except (OSError, asyncio.TimeoutError) as e:
            w.error = repr(e)

    async def _run(self):
        tasks, begin, n = [], time.monotonic(), 0
        while not self._end.is_set():
            w = Write(time.monotonic())
            self.writes.append(w)
            tasks.append(asyncio.create_task(self._write(w, n)))
            n += 1
            await asyncio.sleep(max(0.0, begin + n * self.every - time.monotonic()))
        await asyncio.gather(*tasks)

    def acked_after(self, moment):
        """When the first write that was sent after the moment was acknowledged."""
        return min((w.acked for w in list(self.writes) if w.acked and w.sent > moment),
                   default=None)

    def longest_gap(self, since=0.0):
        times = sorted(w.acked for w in self.writes if w.acked and w.acked >= since)
        return max((b - a for a, b in zip(times, times[1:])), default=0.0)

    def errors(self):
        return [w.error for w in self.writes if w.error]
