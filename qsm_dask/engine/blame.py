"""Which task a worker died of.

Dask hands a worker several tasks, runs one, and blames all of them when the worker dies. Tasks
report their start, so that the one that ran can be told from those that waited. A report may be
lost with the worker; then each of its tasks may be the cause, and shows it by running alone.
"""

from enum import Enum


class Verdict(Enum):
    """What a worker's death means for one of its tasks."""

    GUILTY = "the worker died of it, or while it ran"
    INNOCENT = "it was waiting; another ran"
    SUSPECT = "nobody knows; it must run alone"


class Blame:
    """Keeps account of where submissions run, and of deaths that have their cause."""

    def __init__(self) -> None:
        self._where: dict[int, str] = {}
        self._explained: set[str] = set()
        self._stopped: set[str] = set()

    def started(self, submission: int, worker: str) -> None:
        """A submission says that it has started."""
        self._where[submission] = worker

    def ended(self, submission: int) -> None:
        """A submission is over, whatever became of it."""
        self._where.pop(submission, None)

    def stopped(self, worker: str) -> None:
        """The engine itself ends a worker: its tasks are not to blame."""
        self._stopped.add(worker)
        self._explained.add(worker)

    def died(self, submission: int, worker: str, *, alone: bool) -> Verdict:
        """Judge a submission that was lost with its worker; it is over then.

        Parameters
        ----------
        alone : whether nothing else was submitted, so that there is nobody else to blame.
        """
        ran_here = self._where.pop(submission, None) == worker and worker not in self._stopped
        if alone or ran_here:
            self._explained.add(worker)
            return Verdict.GUILTY
        if worker in self._explained or worker in self._where.values():
            return Verdict.INNOCENT
        return Verdict.SUSPECT
