"""How far a computed cosine may be from the true one."""

UNIT = 2.0**-24  # the largest relative rounding error of one float32 operation


def error_bound(dim: int, levels: int) -> float:
    """How far a float32 cosine of ``dim`` components may be from the true one, at most.

    Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: an inner product of n terms
    in any order of summation errs by at most gamma_n = n u / (1 - n u) times the product of the
    norms. The two norms add gamma_n / 2 each; the 16 covers the roundings of the inputs (float64 is
    rounded to float32), of both inverse norms and of the products with them; ``levels`` the
    additions of segments.
    """
    terms = dim + levels + 16
    return 2 * terms * UNIT / (1 - terms * UNIT)
