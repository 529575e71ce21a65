import cProfile
import json
import pstats

import numpy as np
import pytest

from qsm_dask.errors import ConfigError, InputError
from qsm_dask.io.bids import description, index, participants
from qsm_dask.io.filters import Filters
from tests.io.bids_tree import dataset, scan, write_json


def names(found):
    return [str(acquisition.key) for acquisition in found.acquisitions]


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_scans_are_grouped_by_every_entity_but_echo_and_part_and_by_suffix(tmp_path):
    root = dataset(tmp_path)
    for stem in (
        "sub-01_ses-1_acq-hi_run-1_echo-{}_part-{}_MEGRE",
        "sub-01_ses-1_acq-hi_run-2_echo-{}_part-{}_MEGRE",
        "sub-01_ses-2_acq-hi_run-1_echo-{}_part-{}_MEGRE",
    ):
        for echo in (1, 2):
            for part in ("mag", "phase"):
                session = stem.split("_")[1]
                touch(root / "sub-01" / session / "anat" / (stem.format(echo, part) + ".nii.gz"))
    touch(root / "sub-02/anat/sub-02_part-mag_T2starw.nii")
    touch(root / "sub-02/anat/sub-02_part-phase_T2starw.nii")
    touch(root / "sub-02/anat/sub-02_T1w.nii.gz")
    touch(root / "sub-02/func/sub-02_task-rest_echo-1_part-phase_MEGRE.nii.gz")
    touch(root / "derivatives/x/sub-03/anat/sub-03_part-mag_MEGRE.nii.gz")
    found = index(root)
    assert names(found) == [
        "sub-01_ses-1_acq-hi_run-1",
        "sub-01_ses-1_acq-hi_run-2",
        "sub-01_ses-2_acq-hi_run-1",
        "sub-02_T2starw",
    ]
    first = found.acquisitions[0]
    assert [(image.part, image.echo) for image in first.images] == [("mag", 1), ("mag", 2), ("phase", 1), ("phase", 2)]
    assert first.images[0].file.label == "sub-01/ses-1/anat/sub-01_ses-1_acq-hi_run-1_echo-1_part-mag_MEGRE.nii.gz"
    assert all(acquisition.problem is None for acquisition in found.acquisitions)


def test_an_image_without_part_is_a_magnitude(tmp_path):
    root = dataset(tmp_path)
    touch(root / "sub-01/anat/sub-01_T2starw.nii.gz")
    touch(root / "sub-01/anat/sub-01_part-phase_T2starw.nii.gz")
    assert [image.part for image in index(root).acquisitions[0].images] == ["mag", "phase"]


def test_labels_keep_their_zeros_and_entities_their_order(tmp_path):
    root = dataset(tmp_path)
    touch(root / "sub-007/anat/sub-007_run-01_acq-b_part-phase_MEGRE.nii.gz")
    assert names(index(root)) == ["sub-007_acq-b_run-01"]


@pytest.mark.parametrize("name", ["study.v2", "study[1]", "a b"])
def test_a_dataset_may_lie_in_any_folder(tmp_path, name):
    root = dataset(tmp_path / name)
    scan(root)
    assert names(index(root)) == ["sub-01"]


def test_links_to_data_elsewhere_are_followed(tmp_path):
    store = dataset(tmp_path / "store")
    folder = scan(store)
    root = dataset(tmp_path / "bids")
    (root / "sub-01").symlink_to(store / "sub-01")
    (root / "sub-02" / "anat").mkdir(parents=True)
    for path in folder.iterdir():
        (root / "sub-02" / "anat" / path.name.replace("sub-01", "sub-02")).symlink_to(path)
    assert names(index(root)) == ["sub-01", "sub-02"]
    assert len(index(root).acquisitions[0].images[0].sidecars) == 1


BROKEN = {
    "two files of one part": (
        ["sub-01_part-phase_MEGRE.nii", "sub-01_part-phase_MEGRE.nii.gz"],
        "two files claim part-phase: .*nii and .*nii.gz",
    ),
    "two files of one echo": (
        ["sub-01_echo-1_part-phase_MEGRE.nii", "sub-01_echo-01_part-phase_MEGRE.nii"],
        "two files claim part-phase of echo-1: ",
    ),
    "two scans of one key": (
        ["sub-01_run-1_part-phase_MEGRE.nii", "sub-01_run-01_part-mag_MEGRE.nii"],
        "two scans claim one key: sub-01_run-01 and sub-01_run-1 are the same scan",
    ),
    "wrong folder": (["sub-02_part-phase_MEGRE.nii"], "the name belongs in sub-02/anat"),
    "no such session folder": (["sub-01_ses-1_part-phase_MEGRE.nii"], "the name belongs in sub-01/ses-1/anat"),
    "echo left out": (
        ["sub-01_echo-1_part-phase_MEGRE.nii", "sub-01_echo-3_part-phase_MEGRE.nii"],
        "missing echo: echo-2 of 3 is absent",
    ),
    "image went missing": (
        ["sub-01_echo-1_part-phase_MEGRE.nii", "sub-01_echo-2_part-phase_MEGRE.json"],
        "missing echo: .*echo-2_part-phase_MEGRE.json has no image",
    ),
}


@pytest.mark.parametrize(("files", "problem"), BROKEN.values(), ids=BROKEN.keys())
def test_what_names_alone_tell_is_wrong(tmp_path, files, problem):
    root = dataset(tmp_path)
    scan(root, "sub-09")
    for file in files:
        touch(root / "sub-01/anat" / file)
    broken, sound = index(root).acquisitions
    assert sound.problem is None
    with pytest.raises(InputError, match=problem):
        raise InputError(broken.problem)


def test_names_that_are_not_bids_are_left_out_with_a_warning(tmp_path):
    root = dataset(tmp_path)
    scan(root)
    touch(root / "sub-01/anat/sub-01_acq-high-res_part-phase_MEGRE.nii.gz")
    touch(root / "sub-01/anat/sub-01_part-wave_MEGRE.nii.gz")
    found = index(root)
    assert names(found) == ["sub-01"]
    assert len(found.warnings) == 2
    assert "sub-01_acq-high-res_part-phase_MEGRE.nii.gz: not understood" in found.warnings[0]


def test_participants_and_sessions_are_chosen_with_or_without_their_prefix(tmp_path):
    root = dataset(tmp_path)
    for entities in ("sub-01_ses-a", "sub-01_ses-b", "sub-02_ses-a", "sub-03"):
        scan(root, entities)
    assert names(index(root, participants=["01", "sub-03"])) == ["sub-01_ses-a", "sub-01_ses-b", "sub-03"]
    assert names(index(root, sessions=["ses-a"])) == ["sub-01_ses-a", "sub-02_ses-a"]
    assert names(index(root, participants=["sub-01"], sessions=["b"])) == ["sub-01_ses-b"]


def test_wrong_usage_is_refused_with_a_hint(tmp_path):
    with pytest.raises(InputError, match="no such folder; give the root of a BIDS dataset"):
        index(tmp_path / "absent")
    root = dataset(tmp_path / "bids")
    with pytest.raises(InputError, match="not a BIDS dataset: it holds no folder sub-<label>"):
        index(root)
    scan(root, "sub-01_ses-1")
    with pytest.raises(InputError, match="it is one subject: give the folder above"):
        index(root / "sub-01")
    with pytest.raises(InputError, match="no participant sub-02; there are sub-01"):
        index(root, participants=["02"])
    with pytest.raises(InputError, match="no participant chosen has the session ses-2"):
        index(root, sessions=["2"])
    touch(root / "sub-03/anat/sub-03_T1w.nii.gz")
    with pytest.raises(InputError, match="no gradient-echo images among the participants and sessions chosen"):
        index(root, participants=["03"])


def keep(tmp_path, root, content):
    write_json(tmp_path / "filter.json", content)
    return names(index(root, filters=Filters.load(tmp_path / "filter.json")))


def test_a_filter_file_chooses_by_entities(tmp_path):
    root = dataset(tmp_path / "bids")
    for entities in ("sub-01_acq-a_run-01", "sub-01_acq-b_run-1", "sub-01_acq-b_run-2", "sub-02"):
        scan(root, entities)
    scan(root, "sub-01", suffix="T2starw")
    assert keep(tmp_path, root, {"megre": {"acquisition": "b"}}) == [
        "sub-01_T2starw",
        "sub-01_acq-b_run-1",
        "sub-01_acq-b_run-2",
    ]
    assert keep(tmp_path, root, {"megre": {"run": 1}, "t2starw": {"sub": "none"}}) == [
        "sub-01_acq-a_run-01",
        "sub-01_acq-b_run-1",
    ]
    assert keep(tmp_path, root, {"MEGRE": {"acq": None}, "t2starw": {"acq": "*"}}) == ["sub-02"]
    assert keep(tmp_path, root, {"megre": {"acq": ["a", None], "extension": "nii.gz", "datatype": "anat"}}) == [
        "sub-01_T2starw",
        "sub-01_acq-a_run-01",
        "sub-02",
    ]


def test_echoes_left_out_by_a_filter_are_not_missing(tmp_path):
    root = dataset(tmp_path / "bids")
    scan(root)
    write_json(tmp_path / "filter.json", {"megre": {"echo": [1, 3]}})
    found = index(root, filters=Filters.load(tmp_path / "filter.json"))
    assert found.acquisitions[0].problem is None
    assert {image.echo for image in found.acquisitions[0].images} == {1, 3}


def test_a_filter_file_may_hold_what_other_programs_read(tmp_path, caplog):
    root = dataset(tmp_path / "bids")
    scan(root)
    keep(tmp_path, root, {"bold": {"whatever": 1}, "megre": {"echo": [1, 3]}})
    assert "'bold' is no kind of file that is read here" in caplog.text


def test_a_wrong_filter_file_is_refused(tmp_path):
    root = dataset(tmp_path / "bids")
    scan(root)
    with pytest.raises(InputError, match="the filter file keeps none of the 6 images"):
        keep(tmp_path, root, {"megre": {"acquisition": "c"}})
    with pytest.raises(ConfigError, match="'acquistion' is not a BIDS entity"):
        keep(tmp_path, root, {"megre": {"acquistion": "b"}})
    with pytest.raises(ConfigError, match="expected"):
        keep(tmp_path, root, ["megre"])
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Filters.load(tmp_path / "absent.json")
    (tmp_path / "filter.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        Filters.load(tmp_path / "filter.json")


def calls_to_index(root, scans):
    """How many function calls an index takes; one root sidecar a scan, which tempts to compare all with all."""
    dataset(root)
    for n in range(scans):
        write_json(root / f"sub-{n:04d}_MEGRE.json", {})
        for part in ("mag", "phase"):
            touch(root / f"sub-{n:04d}/anat/sub-{n:04d}_part-{part}_MEGRE.nii.gz")
    profile = cProfile.Profile()
    profile.enable()
    found = index(root)
    profile.disable()
    assert all(len(image.sidecars) == 1 for acquisition in found.acquisitions for image in acquisition.images)
    return pstats.Stats(profile).total_calls


def test_an_index_grows_in_proportion_to_the_scans(tmp_path):
    few, many = calls_to_index(tmp_path / "few", 60), calls_to_index(tmp_path / "many", 240)
    assert many < 4.4 * few


def test_participants_table(tmp_path):
    assert participants(tmp_path) is None
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\tsite\nsub-01\t34\tM\t01\n02\tn/a\tF\tn/a\n")
    table = participants(tmp_path)
    assert list(table["participant_id"]) == ["sub-01", "sub-02"]
    assert table["age"][0] == 34
    assert np.isnan(table["age"][1])
    (tmp_path / "participants.tsv").write_text("participant_id,age\nsub-01,3\n")
    with pytest.raises(InputError, match=r"no column participant_id \(columns are separated by tabs\)"):
        participants(tmp_path)


def test_dataset_description(tmp_path):
    assert description(tmp_path) == {}
    dataset(tmp_path, "a name")
    assert description(tmp_path)["Name"] == "a name"
    (tmp_path / "dataset_description.json").write_text(json.dumps([1]))
    with pytest.raises(InputError, match="expected a JSON object"):
        description(tmp_path)
