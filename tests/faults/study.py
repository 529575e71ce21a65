"""One small cohort, run once without a fault; and what a run that met one is compared with."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from qsm_dask.engine import SerialEngine
from qsm_dask.pipeline import Pipeline
from qsm_dask.store import CohortStore
from qsm_dask.workflow import ingest, process, simulate, status, verify
from tests.faults.planted import FOLDER

ROOT = Path(__file__).parents[2]
SCANS = ("sub-01", "sub-02", "sub-03")
NODES = ("field", "maps", "regions")
PIPELINE = "fast"
ROOM = 4 * 2**30

Steps = Counter[tuple[str, str]]
"""How often a step of a scan was executed: (scan, stage)."""


@dataclass(frozen=True)
class Study:
    """A dataset, its cohort as ingested, and what an undisturbed run makes of it.

    Attributes
    ----------
    bids : the dataset.
    ingested : folder of a cohort that is ingested and no more.
    digests : of the results, by scan and node.
    steps : stages of each node, in order.
    """

    bids: Path
    ingested: Path
    digests: Mapping[tuple[str, str], str]
    steps: Mapping[str, tuple[str, ...]]

    @classmethod
    def make(cls, folder: Path) -> "Study":
        """Simulate, ingest and process it."""
        bids, ingested = folder / "bids", folder / "ingested"
        simulate.run(bids, subjects=len(SCANS), seed=11, shape=(32, 32, 24))
        engine, store = SerialEngine(ROOM), CohortStore.create(ingested)
        ingest.run(bids, store, engine, derivatives=[labels(bids)])
        shutil.copytree(ingested, folder / "undisturbed")
        done = CohortStore.open(folder / "undisturbed")
        process.run(done, engine, Pipeline.from_yaml(PIPELINE))
        commits = [
            done.commit(done.scans()[0], node, key) for node, key in done.committed(done.scans()[0]) if node != "ingest"
        ]
        steps = {one.node: tuple(step["stage"] for step in one.provenance["steps"]) for one in commits if one}
        return cls(bids, ingested, digests(done), steps)

    def copy(self, folder: Path) -> CohortStore:
        """A cohort that is ingested, in a folder of its own."""
        shutil.copytree(self.ingested, folder)
        return CohortStore.open(folder)

    def once(self, *nodes: str, scan: str = "") -> Steps:
        """Every step of these nodes (of all, if none is named) of one scan, or of all, once."""
        return Counter(
            (one, stage) for one in ([scan] if scan else SCANS) for node in nodes or NODES for stage in self.steps[node]
        )

    def assert_whole(self, cohort: CohortStore) -> None:
        """Everything is done and sound, and has the bits of the undisturbed run."""
        assert status.run(cohort).all_done
        assert digests(cohort) == self.digests
        assert verify.run(cohort) == []


def digests(cohort: CohortStore) -> dict[tuple[str, str], str]:
    """What `status` tells of the results themselves."""
    return {(row["scan"], row["node"]): row["digest"] for row in status.run(cohort).rows}


def labels(bids: Path) -> str:
    """What the option `--derivatives` names."""
    return f"{bids / 'derivatives' / 'truth'}:dseg"


class Faults:
    """Arms points of processes that are started with `environment`, and tells which steps these executed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "armed").mkdir(parents=True)
        self.clear()

    @property
    def environment(self) -> dict[str, str]:
        """What plants the faults in a process and in all that it starts; see `planted`."""
        paths = [str(Path(__file__).parent / "site"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {FOLDER: str(self._folder), "PYTHONPATH": os.pathsep.join(paths)}

    def arm(self, point: str, act: str = "kill", *, scan: str | None = None, always: bool = False) -> None:
        """Let `act` happen when a process reaches `point` (with this scan), once or always."""
        order = {"point": point, "act": act, "scan": scan, "always": always}
        draft = self._folder / f"draft-{uuid4().hex}"
        draft.write_text(json.dumps(order))
        draft.rename(self._folder / "armed" / f"{uuid4().hex}.json")

    def release(self) -> None:
        """Let those go on who `hold`."""
        (self._folder / "release").touch()

    def met(self) -> int:
        """How many faults that happen once have happened."""
        return len(list((self._folder / "armed").glob("*.met")))

    def meeters(self) -> list[int]:
        """The processes that met them."""
        return [int(path.read_text()) for path in (self._folder / "armed").glob("*.met")]

    def clear(self) -> None:
        """Disarm everything, and forget the steps."""
        for path in (self._folder / "armed").iterdir():
            path.unlink()
        (self._folder / "release").unlink(missing_ok=True)
        (self._folder / "steps").write_text("")

    def steps(self) -> Steps:
        """The steps that were executed since `clear`."""
        lines = (self._folder / "steps").read_text().splitlines()
        return Counter((scan, stage) for scan, stage in (line.split() for line in lines))


def start(faults: Faults, *arguments: object, **environment: str) -> "subprocess.Popen[str]":
    """The command line in a process of its own, with the faults planted."""
    return subprocess.Popen(
        [sys.executable, "-m", "qsm_dask", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **faults.environment, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]", code: int = 0, seconds: float = 120.0) -> tuple[str, str]:
    """What a command said, once it has ended with this code."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == code, err or out
    return out, err
