"""
The emit rate of a process without clients: ``python -m benchmarks.emitters``.

It takes what ``scripts/benchmark --install-only`` has installed. Each emit waits until Redis has the event.
The emitters take turns, each time in a new process.
"""

from __future__ import annotations

import json
import subprocess
import time
from statistics import median

from benchmarks import machine
from benchmarks.peers import ENVIRONMENTS, SERVERS, freePort

KINDS = {"txrealtime": "txrealtime", "python-socketio": "python"}
"What emits, and the environment that it is installed in."

ROUNDS = 5
COUNT = 3000


def main() -> None:
    """Measure and print: emits in a second, and microseconds of CPU for each."""
    port = freePort()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    redis = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=machine.toServerCore)
    samples: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    try:
        time.sleep(0.5)
        machine.toLoadCore()
        for _ in range(ROUNDS):
            for kind, environment in KINDS.items():
                python = ENVIRONMENTS / environment / "bin" / "python"
                url = f"redis://127.0.0.1:{port}"
                emit = [str(python), str(SERVERS / "emit.py"), kind, url, str(COUNT)]
                printed = subprocess.run(emit, check=True, capture_output=True, text=True).stdout
                samples[kind].append(json.loads(printed))
    finally:
        redis.kill()
        redis.wait()
    for kind, values in samples.items():
        rate, cpu = (median(sample[name] for sample in values) for name in ("rate", "cpu"))
        print(f"{kind:16} {rate:8,.0f} emits a second, {cpu:5.1f} us of CPU each")


if __name__ == "__main__":
    main()
