"""Memory that threads of the service no longer use is the system's again."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Eight threads read 8 MiB each, in pieces that glibc would keep once it has met a larger one.
READING = """
import sys, threading
import numpy as np, psutil
if sys.argv[1] == "given back":
    from aggregator_service.freed_memory import give_back_what_is_large
    give_back_what_is_large()
done = threading.Barrier(9)
def read():
    pieces = [np.ones(2**21, np.uint8) for _ in range(4)]
    small = bytes(2**16)  # which stays behind them
    del pieces
    done.wait()
    done.wait()
np.ones(2**24, np.uint8)
before = psutil.Process().memory_info().rss
threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads: thread.start()
done.wait()
print(psutil.Process().memory_info().rss - before)
done.wait()
for thread in threads: thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's habit")
def test_threads_keep_none_of_the_large_pieces_that_they_freed() -> None:
    kept = {
        how: int(subprocess.run([sys.executable, "-c", READING, how], capture_output=True, check=True).stdout)
        for how in ("left alone", "given back")
    }
    assert kept["given back"] < 2**23 < kept["left alone"]
