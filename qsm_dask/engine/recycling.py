"""When workers are started anew between scans: options of all kinds of cluster whose workers this package starts."""

from dataclasses import dataclass

from qsm_dask.engine.sizing import size_of, whole


@dataclass(frozen=True, kw_only=True)
class Recycling:
    """What a cluster file says of it.

    Attributes
    ----------
    recycle_scans : a worker is started anew after so many scans; None never for their number.
    recycle_growth : or when its memory has grown so much since its first scan; None never for that.
    """

    recycle_scans: int | None = None
    recycle_growth: str | int | None = "512 MiB"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        self.wear()

    def wear(self) -> tuple[int | None, int | None]:
        """After how many scans, and after what growth of its memory [bytes], a worker is worn."""
        scans = None if self.recycle_scans is None else whole("recycle_scans", self.recycle_scans)
        return scans, None if self.recycle_growth is None else size_of(self.recycle_growth)
