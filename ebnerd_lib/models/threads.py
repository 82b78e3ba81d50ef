"""One thread for what must repeat: sums split over threads depend on how many there are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread of the CPU within a ``with`` block or a decorated function.

    With ``MKL_CBWR`` set, matrix products repeat over numbers of threads on Intel's processors alone. On one thread
    they do on all. Networks as small as these gain little from a second one, and a GPU is not affected.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
