"""Products B A of low rank and their weighted sums, never formed: factors side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix B A by its factors.

    Parameters
    ----------
    b, a
        (d_out, R) and (R, d_in).
    """

    b: Tensor
    a: Tensor

    @classmethod
    def sum(cls, parts: Iterable[tuple[float, Product]]) -> Self:
        """Weighted sum of products: weighted B side by side, A one below the other.

        In memory of its own: the last bits of a matrix product depend on where its factors lie.
        """
        import torch

        weighted = [(w * part.b, part.a) for w, part in parts]
        return cls(torch.cat([b for b, _ in weighted], 1), torch.cat([a for _, a in weighted], 0))

    @classmethod
    def nearest(cls, matrix: Tensor, rank: int) -> Self:
        """Nearest product of at most `rank` ranks to a matrix (d_out, d_in), as in `best`."""
        import torch

        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        kept = min(rank, len(s))
        b, a = matrix.new_zeros((len(matrix), rank)), matrix.new_zeros((rank, matrix.shape[1]))
        b[:, :kept], a[:kept] = u[:, :kept] * s[:kept], vt[:kept]
        return cls(b, a)

    @property
    def rank(self) -> int:
        """Number of columns R, which bounds the rank."""
        return self.b.shape[1]

    def dense(self) -> Tensor:
        """The matrix itself, (d_out, d_in)."""
        return self.b @ self.a

    def norm(self) -> float:
        """Frobenius norm: |B A|^2 = <B^T B, A A^T>, of R x R matrices."""
        square = ((self.b.T @ self.b) * (self.a @ self.a.T)).sum()
        # A rounding may leave less than nothing of what cancels.
        return float(square.clamp(min=0.0).sqrt())

    def best(self, rank: int) -> Self:
        """Nearest product of at most `rank` ranks: B = U_k S_k and A = V_k^T of the SVD.

        Singular values fall, so the first j columns of B and rows of A are the nearest product of j
        ranks. By QR of both factors and an SVD of a matrix of min(R, d) rows and columns: the
        d_out x d_in matrix is never formed. What lies beyond `R` is zero.

        Notes
        -----
        Eckart and Young, "The approximation of one matrix by another of lower rank",
        Psychometrika 1, 1936.
        """
        import torch

        left, upper = torch.linalg.qr(self.b)
        right, lower = torch.linalg.qr(self.a.T)
        u, s, vt = torch.linalg.svd(upper @ lower.T, full_matrices=False)
        kept = min(rank, len(s))
        b = self.b.new_zeros((self.b.shape[0], rank))
        a = self.a.new_zeros((rank, self.a.shape[1]))
        b[:, :kept] = left @ (u[:, :kept] * s[:kept])
        a[:kept] = vt[:kept] @ right.T
        return type(self)(b, a)


def best_flops(d_in: int, d_out: int, ranks: int, rank: int) -> float:
    """Floating-point operations of `Product.best`, to leading order.

    QR of a d x R matrix with its orthogonal factor takes 4 d R^2 - 4/3 R^3 and the SVD of an R x R
    matrix about 21 R^3 (Golub and Van Loan, "Matrix Computations", 4th ed. 2013, sections 5.2 and
    8.6); then both factors are multiplied with `rank` singular vectors.

    Parameters
    ----------
    d_in, d_out
        Size of the matrix.
    ranks
        R of the product.
    rank
        Ranks that are kept.
    """
    total = 0.0
    for d in (d_in, d_out):
        least = min(d, ranks)
        total += 4.0 * d * ranks * least - 4.0 / 3.0 * least**3 + 2.0 * d * least * rank
    return total + 21.0 * min(d_in, d_out, ranks) ** 3


def nearest_flops(d_in: int, d_out: int) -> float:
    """Floating-point operations of `Product.nearest`, to leading order.

    With n the lesser of both sizes and m the other, the SVD takes 14 m n^2 + 8 n^3, or, after a QR,
    6 m n^2 + 20 n^3 (Golub and Van Loan, "Matrix Computations", 4th ed. 2013, section 8.6).
    """
    less, more = sorted((d_in, d_out))
    return min(14.0 * more * less**2 + 8.0 * less**3, 6.0 * more * less**2 + 20.0 * less**3)
