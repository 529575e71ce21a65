"""What an iterative kernel reports beside its arrays."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Solved:
    """The end of an iteration; it lands in the provenance of the result.

    Attributes
    ----------
    iterations : iterations done.
    residual : the quantity that the stopping rule compares with its tolerance.
    converged : whether the rule was met before the iterations ran out.
    """

    iterations: int
    residual: float
    converged: bool
