"""Several frozen text encoders and one nested space, as a sentence-transformers model.

``modules.json`` of an exported folder names this file, which travels in the folder's root with all
the files listed below: the very ones that ``fusion`` itself runs. So each of them imports nothing
but its neighbours, torch, numpy, safetensors, transformers, sentence-transformers and the standard
library.
"""

from .fused_encoder import FusedEncoder
from .fused_head import FusedHead
from .fused_model import FusedModel

__all__ = ["FusedEncoder", "FusedHead", "FusedModel"]

# Before transformers 5.15 the loader of custom code copies those files alone that this one names,
# not those which they name in turn. It looks at lines, wherever they stand.
TRAVELLERS = """
from .codebook import Codebook
from .errors import FusionError
from .files import seal
from .grids import gaussian_levels
from .packing import pack
from .precision import Precision
from .rotation import random_rotation
from .settings import FusionSettings
from .shared_tokens import SharedTokens
from .shelf import take_from_shelf
from .trellis import trellis_encode
"""
