"""The door to Lightning, which is an extra and takes seconds to import."""

from fusion.errors import LIBRARIES, MissingExtraError

try:
    import lightning
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
    from lightning.pytorch.plugins.environments import LightningEnvironment
    from lightning.pytorch.plugins.io import TorchCheckpointIO
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
except ImportError as error:
    raise MissingExtraError(*LIBRARIES["lightning"]) from error

__all__ = [
    "Callback",
    "EarlyStopping",
    "LightningEnvironment",
    "MisconfigurationException",
    "ModelCheckpoint",
    "OptimizerLRSchedulerConfig",
    "TorchCheckpointIO",
    "lightning",
]
