"""The sizes of the searches that are timed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """The sizes of a search."""

    queries: int
    documents: int
    dims: tuple[int, ...]
    k: int
    rounds: int = 5


EIGHT = tuple(range(128, 1025, 128))
DOUBLING = (32, 64, 128, 256, 512, 1024)
WORKLOADS = {
    "small": Workload(1406, 8674, EIGHT, 100, 7),
    "small-k10": Workload(1406, 8674, EIGHT, 10),
    "small-k1000": Workload(1406, 8674, EIGHT, 1000),
    "small-doubling": Workload(1406, 8674, DOUBLING, 100),
    "medium": Workload(300, 200_000, EIGHT, 100, 3),
    "few": Workload(16, 200_000, EIGHT, 100),
    "one": Workload(1, 200_000, EIGHT, 100),
    "large": Workload(1000, 1_000_000, (64, 128, 192, 256), 100, 3),
    "arguana": Workload(1406, 8674, (64, 128, 192, 256, 384, 512, 576, 640), 100),
    "arguana-shuffled": Workload(1406, 8674, (64, 128, 192, 256, 384, 512, 576, 640), 100),
    "gpu": Workload(10_000, 10_000_000, EIGHT, 100, 3),
}
