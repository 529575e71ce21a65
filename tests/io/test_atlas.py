"""Atlases as folders: what is found in them, under which names, and what their digests depend on."""

import importlib
import json
import sys

import nibabel as nib
import numpy as np
import pytest

from qsm_dask.errors import ConfigError, InputError, StageError
from qsm_dask.io.atlas import pin, read

SHAPE = (4, 5, 6)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def save(path, values, code=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, AFFINE)
    image.set_sform(AFFINE, code)
    image.set_qform(np.diag([1.0, 1.0, 1.0, 1.0]), 1)  # disagrees: in a standard space the sform counts
    nib.save(image, path)


def region_image(dtype=np.uint8):
    labels = np.zeros(SHAPE, dtype)
    labels[1], labels[2] = 1, 7
    return labels


@pytest.fixture
def folder(tmp_path):
    """A template of two resolutions with one atlas."""
    made = tmp_path / "tpl-toy"
    for res, value in (("01", 1.0), ("02", 2.0)):
        save(made / f"tpl-toy_res-{res}_T1w.nii.gz", np.full(SHAPE, value, np.float32))
        save(made / f"tpl-toy_res-{res}_desc-brain_mask.nii.gz", np.ones(SHAPE, np.uint8))
        save(made / f"tpl-toy_res-{res}_atlas-nuclei_dseg.nii.gz", region_image())
    save(made / "tpl-toy_res-01_desc-brain_T1w.nii.gz", np.zeros(SHAPE, np.float32))
    (made / "tpl-toy_atlas-nuclei_dseg.tsv").write_text("index\tname\n0\tbackground\n1\tPutamen_L\n7\tPutamen_R\n")
    return made


def test_a_template_is_its_plainest_images_in_the_first_resolution(folder):
    atlas = read(str(folder), "template")
    assert atlas.space == "toy"
    assert list(atlas.contrasts) == ["T1w"]
    assert (atlas.contrasts["T1w"].values == 1.0).all()
    np.testing.assert_array_equal(atlas.contrasts["T1w"].affine, AFFINE)
    assert atlas.mask is not None
    assert atlas.mask.values.dtype == bool
    assert (read(f"{folder}#res-02", "template").contrasts["T1w"].values == 2.0).all()


def test_regions_have_the_names_of_their_table(folder):
    atlas = read(str(folder), "regions")
    assert atlas.names == {1: "Putamen_L", 7: "Putamen_R"}
    assert atlas.labels is not None
    np.testing.assert_array_equal(atlas.labels.values, region_image())
    np.testing.assert_array_equal(atlas.labels.affine, AFFINE)


def test_one_of_several_atlases_is_chosen_by_its_entities(folder):
    save(folder / "tpl-toy_res-01_atlas-other_dseg.nii.gz", region_image())
    with pytest.raises(ConfigError, match=r"holds several.*#atlas-NAME"):
        pin(str(folder), "regions")
    assert read(f"{folder}#atlas-other", "regions").names == {1: "label_1", 7: "label_7"}


@pytest.mark.parametrize(
    "table",
    ["Region_Index,Region_Name\n1,Pu_LH\n7,Pu_RH\n", "\ufeff1,Pu_LH\n7,Pu_RH\n", "index\tname\n1\tPu_LH\n7\tPu_RH\n"],
    ids=["header", "no header, byte order mark", "tabs"],
)
def test_a_single_image_beside_a_table_is_an_atlas(tmp_path, table):
    save(tmp_path / "a" / "CIT168_subcortex.nii.gz", region_image())
    (tmp_path / "a" / "CIT168_subcortex_lookup.csv").write_text(table, encoding="utf-8")
    assert read(str(tmp_path / "a"), "regions").names == {1: "Pu_LH", 7: "Pu_RH"}


def test_labels_beyond_float32_stay_exact(tmp_path):
    top = 2**31 - 1
    save(tmp_path / "a" / "big.nii", np.where(region_image() == 7, top, 0).astype(np.int32))
    assert read(str(tmp_path / "a"), "regions").names == {top: f"label_{top}"}
    save(tmp_path / "b" / "big.nii", np.full(SHAPE, 0.5, np.float32))
    with pytest.raises(InputError, match="fractions"):
        read(str(tmp_path / "b"), "regions")


def test_probabilities_come_in_one_file_or_one_a_region(tmp_path):
    values = np.zeros((*SHAPE, 2), np.float32)
    values[0, ..., 0], values[1, ..., 1] = 0.25, 1.0
    save(tmp_path / "a" / "tpl-toy_atlas-p_probseg.nii.gz", values)
    (tmp_path / "a" / "tpl-toy_atlas-p_probseg.tsv").write_text("index\tname\n4\tred\n9\tblack\n")
    one = read(str(tmp_path / "a"), "regions")
    for label, volume in (("red", 0), ("black", 1)):
        save(tmp_path / "b" / f"tpl-toy_label-{label}_probseg.nii.gz", values[..., volume])
    several = read(str(tmp_path / "b"), "regions")
    assert one.names == {4: "red", 9: "black"}
    assert several.names == {1: "black", 2: "red"}  # by file name
    np.testing.assert_array_equal(one.probabilities.values[0], several.probabilities.values[1])


def test_the_digest_is_of_the_content_and_of_the_part(folder, tmp_path):
    template, regions = pin(str(folder), "template"), pin(str(folder), "regions")
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    assert pin(str(moved), "template") == template
    save(moved / "tpl-toy_res-01_atlas-nuclei_dseg.nii.gz", region_image() * 2)
    assert pin(str(moved), "template") == template
    assert pin(str(moved), "regions").digest != regions.digest
    assert pin(str(moved), "template").voxels == 2 * np.prod(SHAPE)
    with pytest.raises(StageError, match="not what it was when the run began"):
        read(str(moved), "regions", regions.digest)


@pytest.mark.parametrize("kind", ["table", "sidecar", "file names"])
def test_the_digest_follows_the_names_wherever_they_stand(tmp_path, kind):
    """A region that is renamed is another result, though no image changed."""
    first, second = (np.full(SHAPE, value, np.float32) for value in (0.25, 0.5))
    whole, stem = np.stack([first, second], axis=-1), tmp_path / "a" / "tpl-toy_atlas-p_probseg"

    def named(*names):
        if kind == "file names":
            for label, values in zip(names, (first, second), strict=True):
                save(tmp_path / "-".join(names) / f"tpl-toy_label-{label}_probseg.nii.gz", values)
            return str(tmp_path / "-".join(names))
        save(stem.with_suffix(".nii.gz"), whole)
        rows = "".join(f"{number}\t{name}\n" for number, name in enumerate(names, 1))
        text, suffix = (rows, ".tsv") if kind == "table" else (json.dumps({"LabelMap": names}), ".json")
        stem.with_suffix(suffix).write_text(text)
        return str(tmp_path / "a")

    before = pin(named("alpha", "beta"), "regions")
    assert pin(named("alpha", "beta"), "regions") == before
    renamed = named("alpha", "gamma")
    assert list(read(renamed, "regions").names.values()) == ["alpha", "gamma"]
    assert pin(renamed, "regions").digest != before.digest


def test_templateflow_is_looked_for_and_never_fetched(folder, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(folder.parent))
    assert pin("templateflow:toy", "template") == pin(str(folder), "template")
    with pytest.raises(ConfigError, match="templateflow get MNI"):
        pin("templateflow:MNI", "template")


def test_an_installed_package_may_ship_an_atlas(tmp_path, monkeypatch):
    save(tmp_path / "atlaspackage" / "data" / "MNI152NLin6Asym" / "toy.nii.gz", region_image())
    (tmp_path / "atlaspackage" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    atlas = read("package:atlaspackage/data/MNI152NLin6Asym", "regions")
    assert (atlas.space, len(atlas.names)) == ("MNI152NLin6Asym", 2)
    assert "atlaspackage" not in sys.modules  # found without running it
    with pytest.raises(ConfigError, match="no Python package"):
        pin("package:absent/data", "regions")


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"no folder .*give a folder, templateflow:NAME"):
        pin(str(tmp_path / "nowhere"), "template")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no image to register to"):
        pin(str(tmp_path / "empty"), "template")
    with pytest.raises(ConfigError, match="has no regions"):
        pin(str(tmp_path / "empty"), "regions")
    with pytest.raises(ConfigError, match="are entities"):
        pin(f"{tmp_path / 'empty'}#nonsense", "regions")
