"""`verify` finds every damage of a cohort, whatever engine runs it, and nothing where there is none."""

from pathlib import Path

import numpy as np
import pytest

from qsm_dask.engine.base import Engine, SerialEngine
from qsm_dask.scan import ScanKey
from qsm_dask.store import INGEST_KEY, CohortStore
from qsm_dask.workflow import verify

KEY = "abcd"
NAMES = ("sub-01", "sub-02", "sub-03")


@pytest.fixture
def cohort(tmp_path: Path) -> CohortStore:
    store = CohortStore.create(tmp_path / "cohort")
    rng = np.random.default_rng(5)
    for name in NAMES:
        for node, key in (("ingest", INGEST_KEY), ("maps", KEY)):
            commit = store.write(
                ScanKey.parse(name), node, key, {"chi": rng.normal(size=(4, 4, 4)).astype(np.float32)},
                attributes={}, provenance={}, seconds=0, peak_bytes=0,
            )  # fmt: skip
            store.record([commit.row()])
    return store


@pytest.fixture(params=["none", "serial"])
def engine(request: pytest.FixtureRequest) -> Engine | None:
    return SerialEngine(limit=2**30) if request.param == "serial" else None


def _attempt(cohort: CohortStore, name: str, node: str, key: str) -> Path:
    commit = cohort.commit(ScanKey.parse(name), node, key)
    assert commit is not None
    return cohort.place.folder / commit.folder / "chi"


def test_a_sound_cohort_has_no_damage(cohort: CohortStore, engine: Engine | None) -> None:
    seen: list[tuple[int, int, str]] = []
    assert verify.run(cohort, engine, progress=lambda *step: seen.append(step)) == []
    assert seen == [(n, 3, name) for n, name in enumerate(NAMES, start=1)]


def test_every_damage_is_a_line_with_scan_node_and_file(cohort: CohortStore, engine: Engine | None) -> None:
    flipped = _attempt(cohort, "sub-01", "ingest", INGEST_KEY) / "c.0.0.0"
    content = bytearray(flipped.read_bytes())
    content[40] ^= 4
    flipped.write_bytes(bytes(content))
    short = _attempt(cohort, "sub-01", "maps", KEY) / "c.0.0.0"
    size = short.stat().st_size
    short.write_bytes(short.read_bytes()[:-3])
    missing = _attempt(cohort, "sub-03", "maps", KEY) / "c.0.0.0"
    missing.unlink()
    torn = cohort.place.folder / "scans" / "sub-02" / "maps" / KEY / "COMMIT.json"
    torn.write_bytes(torn.read_bytes()[:100])
    found = [str(damage) for damage in verify.run(cohort, engine)]
    assert [found[0], found[1], found[3]] == [
        f"sub-01 ingest: {flipped} has been altered: its checksum does not fit",
        f"sub-01 maps: {short} has {size - 3} bytes instead of {size}",
        f"sub-03 maps: {missing} is missing",
    ]
    assert found[2].startswith(f"sub-02 maps: {torn} cannot be read")
    assert len(found) == 4


def test_a_commit_that_vanished_is_named(cohort: CohortStore, engine: Engine | None) -> None:
    (cohort.place.folder / "scans" / "sub-02" / "maps" / KEY / "COMMIT.json").unlink()
    (damage,) = verify.run(cohort, engine)
    assert (damage.scan, damage.node) == ("sub-02", "maps")
    assert damage.file == str(cohort.place.folder / "scans" / "sub-02" / "maps" / KEY / "COMMIT.json")
    assert damage.reason == "is missing"


def test_superseded_results_are_verified_too(cohort: CohortStore) -> None:
    chi = {"chi": np.ones((4, 4, 4), np.float32)}
    scan = ScanKey.parse("sub-01")
    newer = cohort.write(scan, "maps", "ffff", chi, attributes={}, provenance={}, seconds=0, peak_bytes=0)
    cohort.record([newer.row()])
    damaged = _attempt(cohort, "sub-01", "maps", KEY) / "c.0.0.0"
    damaged.unlink()
    assert verify.run(cohort) == [verify.Damage("sub-01", "maps", KEY, str(damaged), "is missing")]


def test_a_scan_that_could_not_be_verified_is_a_line(cohort: CohortStore, monkeypatch: pytest.MonkeyPatch) -> None:
    committed = CohortStore.committed

    def fail(self: CohortStore, scan: ScanKey) -> list[tuple[str, str]]:
        if str(scan) == "sub-02":
            raise MemoryError("too big")
        return committed(self, scan)

    monkeypatch.setattr(CohortStore, "committed", fail)
    (damage,) = verify.run(cohort, SerialEngine(limit=2**30))
    assert damage == verify.Damage("sub-02", "", "", "", "could not be verified: too big")
    assert str(damage) == "sub-02: could not be verified: too big"
