"""Principal components of fused embeddings, uncentred: the best linear keeper of their cosines."""

from typing import Any, Self

import numpy as np

from fusion.space.compressor import FittedCompressor, chunks

NOTHING = 1e-6  # of the greatest eigenvalue: float32 products leave up to 1e-7 where nothing is


class PCA(FittedCompressor):
    """Principal components, uncentred by default: the eigenvectors of XᵀX.

    Cosine is measured from the origin, so the uncentred form is the best linear keeper of the
    matrix of dot products (Eckart-Young), and subtracting a mean would change every cosine.
    Components are the same on all machines but for rounding, and for those whose eigenvalues tie.
    """

    name = "pca"

    def __init__(
        self, out_dim: int | None = None, *, centred: bool = False, power: float = 0.0
    ) -> None:
        """Choose the variant.

        Args:
            out_dim: components to keep; all of them by default.
            centred: subtract the training mean first.
            power: scale each component by its eigenvalue (relative to the largest) to this power:
                0 leaves it as it is, -0.1 lifts the weak ones a little, -0.5 whitens.
        """
        super().__init__(out_dim)
        if not np.isfinite(power):
            raise ValueError(f"power must be finite, got {power}")
        self.centred = centred
        self.power = power

    @property
    def matrix(self) -> np.ndarray:
        """Float32 ``[D, d]``, the components as columns, scaled."""
        self._fitted()
        return self._matrix

    @property
    def mean(self) -> np.ndarray:
        """Float32 ``[D]``, what is subtracted; zero when uncentred."""
        self._fitted()
        return self._mean

    @property
    def explained(self) -> np.ndarray:
        """Float32 ``[d]``, each component's share of the second moment (variance if centred)."""
        self._fitted()
        return self._explained

    def _fit(self, embeddings: np.ndarray, out_dim: int) -> None:
        values, vectors, mean = _principal(embeddings, self.centred)
        # A negative power would blow up what is weak, above all the components that few texts leave
        # empty: those beyond half as many as there are texts are scaled like the last before them.
        last = values[min(len(values), max(1, len(embeddings) // 2)) - 1]
        relative = np.clip(values / values[0], max(NOTHING, last / values[0]), None)  # (D,)
        # An eigenvector's sign is arbitrary; fix it, so that two fits agree:
        # bit for bit on one machine, and on another but for rounding.
        largest = np.abs(vectors).argmax(axis=0)  # (D,)
        signs = np.sign(vectors[largest, np.arange(len(values))])  # (D,)
        scaled = vectors * (signs * relative**self.power)  # (D, D)
        self._matrix = np.ascontiguousarray(scaled[:, :out_dim], dtype=np.float32)  # (D, d)
        self._mean = mean.astype(np.float32)  # (D,)
        self._explained = (values / values.sum())[:out_dim].astype(np.float32)  # (d,)

    def _project(self, chunk: np.ndarray) -> np.ndarray:
        return (chunk - self._mean if self.centred else chunk) @ self._matrix  # (rows, d)

    def _config(self) -> dict[str, Any]:
        return {"centred": self.centred, "power": self.power}

    def _tensors(self) -> dict[str, np.ndarray]:
        return {"matrix": self._matrix, "mean": self._mean, "explained": self._explained}

    @classmethod
    def _restore(cls, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        restored = cls(config["out_dim"], centred=config["centred"], power=config["power"])
        restored._matrix, restored._mean = tensors["matrix"], tensors["mean"]
        restored._explained = tensors["explained"]
        return restored


def _principal(embeddings: np.ndarray, centred: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues descending ``[D]``, eigenvectors as columns ``[D, D]``, mean ``[D]``; float64."""
    dim = embeddings.shape[1]
    moment, total = np.zeros((dim, dim)), np.zeros(dim)
    for _, chunk in chunks(embeddings):
        moment += chunk.T @ chunk  # (D, D)
        total += chunk.sum(axis=0, dtype=np.float64)  # (D,)
    moment /= len(embeddings)
    mean = total / len(embeddings) if centred else np.zeros(dim)
    if not np.isfinite(moment).all():
        raise ValueError("embeddings to fit on hold NaN or infinite values")
    values, vectors = np.linalg.eigh(moment - np.outer(mean, mean))
    _settle_null_space(values, vectors)
    values = np.clip(values[::-1], 0.0, None)  # (D,) rounding makes small ones negative
    if values[0] == 0:
        raise ValueError("embeddings to fit on are all equal or zero: there is nothing to keep")
    return values, vectors[:, ::-1], mean


def _settle_null_space(values: np.ndarray, vectors: np.ndarray) -> None:
    """Choose the eigenvectors of the eigenvalue zero, in place; values ascend.

    Any basis will do, and eigh's turns with the last bits of the embeddings. This one is drawn from
    a fixed seed and moves no further than the null space itself.
    """
    none = values <= NOTHING * values[-1]
    if none.any():
        basis = vectors[:, none]  # (D, m)
        drawn = np.random.default_rng(0).standard_normal(basis.shape)
        vectors[:, none] = np.linalg.qr(basis @ (basis.T @ drawn))[0]
