"""One training over several processes: who is who. Light to import."""

import os

from fusion.space.training.recipe import TrainConfig


def is_first(config: TrainConfig) -> bool:
    """Whether this process is the one that writes and talks.

    A launcher (torchrun, Slurm, Lightning's own) tells each process its place in the environment;
    a training on one device takes no notice, since it may be one of many jobs of a launcher.
    """
    if config.devices == 1 and config.nodes == 1:
        return True
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return os.environ[name] == "0"
    node = os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0"))
    return node == "0" and os.environ.get("LOCAL_RANK", "0") == "0"
