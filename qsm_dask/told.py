"""What a stage reports beside its arrays and beside how an iteration ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Told:
    """Figures and names that belong to a result; they land in its facts.

    Attributes
    ----------
    figures : numbers that tell how good the result is.
    labels : names of the labels of a label image that the stage made.
    warnings : what asks to be looked at.
    """

    figures: Mapping[str, float]
    labels: Mapping[int, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
