"""The accuracy command: what it feeds to methods, how it judges, and that it finds every method by itself."""

import dataclasses
import inspect
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from qsm_dask import stages
from qsm_dask.kernels.inversion.direct import tkd
from qsm_dask.memory import volumes
from qsm_dask.pipeline.schema import read_step
from qsm_dask.stages import STAGES, Stage
from tests.benchmarks.accuracy import __main__ as command
from tests.benchmarks.accuracy import runs, verdicts
from tests.benchmarks.accuracy.cases import Case, head, two_maps
from tests.benchmarks.accuracy.page import page
from tests.benchmarks.accuracy.runs import Row, compare, methods, run
from tests.benchmarks.accuracy.verdicts import JUDGED

COARSE = (48, 56, 40)


@pytest.fixture(scope="module")
def case() -> Case:
    return head(1, COARSE, 100.0, calcified=True, oblique=True)


def nothing(_row: Row, _found: NDArray[np.float64]) -> None:
    return None


class TestCases:
    def test_without_noise_every_true_input_is_the_truth(self) -> None:
        silent = head(1, COARSE, math.inf, calcified=True, oblique=True)
        mask = silent.truth["mask"]
        for name in ("total_field", "local_field"):
            assert silent.known[name][mask] == pytest.approx(silent.truth[name][mask], abs=2e-5)
        turns = (silent.known["unwrapped_phase"] - silent.known["phase"])[:, mask] / (2.0 * np.pi)
        assert turns == pytest.approx(np.rint(turns), abs=1e-3)

    def test_noise_is_that_which_the_field_declares(self, case: Case) -> None:
        core = case.core & ~case.source
        error = (case.known["local_field"] - case.truth["local_field"])[core].astype(np.float64)
        assert np.mean((error / case.known["field_noise"][core]) ** 2) == pytest.approx(1.0, abs=0.15)

    def test_the_core_lies_six_millimetres_deep(self, case: Case) -> None:
        inside, spacing = np.argwhere(case.core), case.scan["voxel_size"]
        outside = np.argwhere(~case.truth["mask"])
        nearest = min(np.linalg.norm((outside - place) * spacing, axis=1).min() for place in inside[::50])
        assert nearest > 6.0

    @pytest.mark.slow
    def test_the_independent_package_agrees_about_directions(self) -> None:
        pytest.importorskip("qsm_forward")
        from tests.benchmarks.accuracy.cases import forward

        tilted = forward("oblique")
        (row,) = [row for row in run(tilted, ["inversion.medi"], nothing) if row.mode == "isolated"]
        assert row.figures["correlation"] > 0.98  # with B0 along z instead it falls below 0.8


class TestCompare:
    def test_the_truth_scores_best_by_every_measure(self, case: Case) -> None:
        figures, _ = compare(case, "chi", {"chi": case.truth["chi"], "mask": case.truth["mask"]}, core=False)
        assert figures["nrmse"] == figures["hfen"] == figures["detrended"] == 0.0
        assert [figures[name] for name in ("xsim", "slope", "correlation")] == pytest.approx([1.0, 1.0, 1.0])
        assert figures["keeps"] == 100.0

    def test_what_a_mask_loses_counts_as_zero(self, case: Case) -> None:
        half = case.truth["mask"].copy()
        half[half.shape[0] // 2 :] = False
        figures, found = compare(case, "chi", {"chi": case.truth["chi"], "mask": half}, core=False)
        truth = case.truth["chi"].astype(np.float64)
        whole = case.truth["mask"]
        inside, lost = truth[half] - truth[half].mean(), truth[whole & ~half] - truth[whole].mean()
        wrong = np.concatenate([inside - (truth[half] - truth[whole].mean()), lost])
        expected = np.linalg.norm(wrong) / np.linalg.norm(truth[whole] - truth[whole].mean())
        assert figures["nrmse"] == pytest.approx(100.0 * expected, rel=1e-6)
        assert figures["keeps"] == pytest.approx(100.0 * half.sum() / whole.sum())
        assert not found[whole & ~half].any()

    def test_an_inversion_that_leaves_voxels_at_zero_has_lost_them(self, case: Case) -> None:
        chi = np.where(case.core, case.truth["chi"], np.float32(0.0))
        figures, _ = compare(case, "chi", {"chi": chi, "mask": case.truth["mask"]}, core=False)
        assert figures["keeps"] == pytest.approx(100.0 * case.core.sum() / case.truth["mask"].sum(), abs=0.1)

    def test_fields_are_judged_on_the_core(self, case: Case) -> None:
        local = np.where(case.core, case.truth["local_field"], np.float32(9.0))
        figures, _ = compare(case, "local_field", {"local_field": local, "mask": case.truth["mask"]}, core=True)
        assert figures["nrmse"] == 0.0

    def test_whole_turns_are_counted_and_a_common_one_forgiven(self, case: Case) -> None:
        phase, mask = case.truth["unwrapped_phase"].copy(), case.truth["mask"]
        phase[:] += np.float32(2.0 * np.pi)
        few = np.argwhere(mask)[:10]
        phase[0][tuple(few.T)] += np.float32(2.0 * np.pi)
        figures, _ = compare(case, "unwrapped_phase", {"unwrapped_phase": phase, "mask": mask}, core=False)
        assert figures["wrong_turns"] == pytest.approx(100.0 * 10 / mask.sum() / phase.shape[0])


class TestRuns:
    def test_methods_come_from_the_table(self) -> None:
        found = methods([""])
        for name in STAGES:
            assert (name in found) == (runs.family_of(name) in runs.FAMILIES)
        assert "pipeline.consensus" in found
        assert methods(["tkd", "sharp"]) == [name for name in found if "tkd" in name or "sharp" in name]

    def test_a_new_method_is_measured_without_being_named_anywhere(
        self, case: Case, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def brilliant(local_field: Any, mask: Any, voxel_size: Any, b0_dir: Any, /) -> Any:
            return np.where(mask, case.truth["chi"], np.float32(0.0)).astype(np.float32)

        more = {**STAGES, "inversion.brilliant": Stage(brilliant, ("chi",), volumes(1))}
        for room in (runs, stages):
            monkeypatch.setattr(room, "STAGES", more)
        monkeypatch.setattr(runs, "read_step", lambda where, name: read_step(where, name, more))
        rows = list(run(case, methods(["brilliant"]), nothing))
        assert [row.mode for row in rows] == ["isolated", "composed"]
        assert rows[0].figures["nrmse"] == 0.0

    def test_isolated_is_the_kernel_on_the_true_input(self, case: Case) -> None:
        seen = {}
        rows = list(run(case, ["inversion.tkd"], lambda row, found: seen.update({row.mode: found})))
        known = case.known
        chi = tkd(known["local_field"], known["mask"], known["voxel_size"], known["b0_dir"]).astype(np.float64)
        mask = known["mask"]
        assert seen["isolated"][mask] == pytest.approx(chi[mask] - chi[mask].mean(), abs=1e-7)
        isolated, composed = rows
        assert composed.mode == "composed"
        assert composed.figures["nrmse"] > isolated.figures["nrmse"]

    @pytest.mark.parametrize("reads", ["local_field", "total_field", "phase"])
    def test_a_method_is_composed_in_the_place_that_it_takes(
        self, case: Case, reads: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = []

        def single(first: Any, mask: Any, /) -> Any:
            given.append(mask)
            return np.where(mask, np.float32(0.1), np.float32(0.0)) * (1 + np.arange(mask.shape[2], dtype=np.float32))

        single.__signature__ = inspect.signature(single).replace(  # type: ignore[attr-defined]
            parameters=[
                inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY, annotation=Any) for name in (reads, "mask")
            ]
        )
        more = {**STAGES, "inversion.single": Stage(single, ("chi",), volumes(1))}
        for room in (runs, stages):
            monkeypatch.setattr(room, "STAGES", more)
        monkeypatch.setattr(runs, "read_step", lambda where, name: read_step(where, name, more))
        rows = list(run(case, ["inversion.single"], nothing))
        assert [row.reason for row in rows] == ["", ""]
        # Only what follows the removal of the background gets the narrower mask.
        assert np.array_equal(given[1], case.truth["mask"]) == (reads != "local_field")

    def test_both_sources_are_compared_as_they_are(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        def known(mask: Any, r2star: Any, /) -> Any:
            para, dia = case.truth["chi_para"], case.truth["chi_dia"]
            return np.where(mask, para + np.float32(0.1), np.float32(0.0)), dia.copy()

        more = {**STAGES, "separation.known": Stage(known, ("chi_para", "chi_dia"), volumes(1))}
        for room in (runs, stages):
            monkeypatch.setattr(room, "STAGES", more)
        monkeypatch.setattr(runs, "read_step", lambda where, name: read_step(where, name, more))
        isolated = [row for row in run(case, ["separation.known"], nothing) if row.mode == "isolated"]
        assert [row.quantity for row in isolated] == ["chi_para", "chi_dia"]
        para, dia = (row.figures for row in isolated)
        assert para["rmse_ppb"] == pytest.approx(100.0, rel=1e-4)  # a constant counts
        assert dia["nrmse"] == 0.0

    def test_what_has_no_place_in_the_standard_pipeline_is_composed_where_it_belongs(self, case: Case) -> None:
        chosen = ["inversion.two_pass", "separation.r2prime", "separation.r2star"]
        rows = list(run(case, chosen, nothing))
        assert not [row.reason for row in rows if row.reason]
        expected = [("inversion.two_pass", "chi")]
        expected += [(name, part) for name in chosen[1:] for part in ("chi_para", "chi_dia")]
        for mode in ("isolated", "composed"):
            assert [(row.method, row.quantity) for row in rows if row.mode == mode] == expected
        keeps = {row.figures["keeps"] for row in rows if row.mode == "composed"}
        assert len(keeps) == 1  # the true mask less what V-SHARP loses, whatever the pipeline masks
        assert keeps.pop() < 100.0

    def test_two_maps_differ_where_voxels_are_not_reliable(self, case: Case) -> None:
        given = two_maps(case)
        lost = case.known["mask"] & ~given["mask_reliable"]
        assert (lost & case.source).any()
        assert not given["chi_reliable"][lost].any()
        assert given["chi_filled"][lost].all()

    def test_without_a_true_map_nothing_is_computed(self, case: Case) -> None:
        truth = {name: value for name, value in case.truth.items() if name != "chi_para"}
        poor = dataclasses.replace(case, truth=truth, known={})
        row = next(run(poor, ["separation.r2star"], nothing))
        assert row.reason == "lacks the true chi_para"

    def test_a_method_that_lacks_its_input_gives_a_reason(self, case: Case) -> None:
        poor = Case(
            case.group,
            case.name,
            case.scan,
            {name: value for name, value in case.known.items() if name != "local_field"},
            case.truth,
            case.core,
            case.regions,
            case.source,
        )
        row = next(run(poor, ["inversion.tkd"], nothing))
        assert (row.reason, row.figures) == ("lacks local_field", {})


def rows_of(method: str, errors: list[float], kept: float = 100.0, slope: float = 1.0) -> list[Row]:
    return [
        Row(JUDGED, f"seed {seed}", method, "isolated", {"nrmse": error, "keeps": kept, "slope": slope})
        for seed, error in enumerate(errors)
    ]


class TestVerdicts:
    def test_the_worst_head_decides(self) -> None:
        (bound,) = verdicts.verdicts(rows_of("inversion.rts", [20.0, 28.1]))
        assert not bound.met
        (bound,) = verdicts.verdicts(rows_of("inversion.rts", [20.0, 28.0]))
        assert bound.met

    def test_the_share_that_is_kept_counts(self) -> None:
        assert not verdicts.verdicts(rows_of("inversion.tv", [10.0], kept=94.9))[0].met
        assert verdicts.verdicts(rows_of("background.ismv", [10.0], kept=60.0))[0].met

    def test_a_method_that_fails_on_one_head_misses(self) -> None:
        rows = [*rows_of("inversion.tv", [10.0]), Row(JUDGED, "seed 9", "inversion.tv", "isolated", {}, reason="no")]
        assert not verdicts.verdicts(rows)[0].met

    def test_the_best_background_method_must_keep_enough(self) -> None:
        rows = [*rows_of("background.sharp", [10.0], kept=74.0), *rows_of("background.pdf", [13.0], kept=99.0)]
        best = verdicts.verdicts(rows)[-1]
        assert best.met
        assert "background.pdf" in best.measured
        assert not verdicts.verdicts(rows[:1])[-1].met

    def test_less_linear_than_tkd_is_a_miss_unless_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = [*rows_of("inversion.tkd", [30.0], slope=1.08), *rows_of("inversion.tv", [20.0], slope=0.9)]
        assert [one.met for one in verdicts.verdicts(rows)] == [True, True, False]

        def said() -> None:
            """Recovers 90 % of the contrast of deep
            grey matter, less than `tkd`."""

        monkeypatch.setattr(verdicts, "STAGES", {**STAGES, "inversion.tv": Stage(said, ("chi",), volumes(1))})
        assert [one.met for one in verdicts.verdicts(rows)] == [True, True, True]


def test_the_page_gives_mean_and_worst() -> None:
    rows = rows_of("inversion.tv", [10.0, 14.0])
    text = page(rows, verdicts.verdicts(rows), "two heads", {"inversion": "one.png"})
    assert "| `inversion.tv` | 12.0 (14.0) |" in text
    assert "| inversion.tv | at most 22 %, keeps 95 % | 14.0 %, keeps 100.0 % | pass |" in text
    assert "](one.png)" in text


def test_the_page_gives_a_line_to_each_of_two_sources() -> None:
    rows = [
        Row(JUDGED, "seed 1", "separation.r2star", "isolated", {"nrmse": error}, quantity=quantity)
        for quantity, error in (("chi_para", 41.0), ("chi_dia", 52.0))
    ]
    text = page(rows, [], "one head", {"separation": "two.png"})
    assert "| `separation.r2star` chi_para | 41.0 |" in text
    assert "| `separation.r2star` chi_dia | 52.0 |" in text
    assert "](two.png)" in text


def test_a_method_that_did_not_run_is_told_once() -> None:
    failed = [Row(JUDGED, f"seed {seed}", "inversion.odd", "isolated", {}, reason="lacks it") for seed in (1, 2)]
    text = page([*rows_of("inversion.tv", [10.0]), *failed], [], "two heads", {})
    assert text.count("inversion.odd") == 1
    assert f"- `inversion.odd`: lacks it ({JUDGED}, isolated)" in text


def test_the_command_writes_page_figures_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "docs"
    arguments = ["--methods", "tkd", "weighted", "romeo", "--seeds", "1", "--shape", "32", "32", "24", "--heads-only"]
    status = command.main([*arguments, "--docs", str(out), "--json", str(tmp_path / "figures.json")])
    content = json.loads((tmp_path / "figures.json").read_text())
    assert {row["method"] for row in content["rows"]} == {"inversion.tkd", "field.weighted_mean", "unwrap.romeo"}
    assert status == (0 if all(one["met"] for one in content["verdicts"]) else 1)
    assert (out / "accuracy.md").read_text() in capsys.readouterr().out
    assert {path.name for path in out.glob("*.png")} == {
        f"accuracy-{family}.png" for family in ("inversion", "composed", "field", "unwrap")
    }
    with Image.open(out / "accuracy-inversion.png") as picture:
        assert picture.mode == "P"
    assert command.main(["--methods", "no-such-method"]) == 2
