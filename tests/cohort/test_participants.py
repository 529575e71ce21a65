"""The participants table: what a cohort keeps of its datasets' tables, and one answer for doubled rows."""

from pathlib import Path

import pandas as pd
import pytest

from qsm_dask.cohort import participants
from qsm_dask.cohort.participants import Participants
from qsm_dask.io import bids
from qsm_dask.store import CohortStore


@pytest.fixture
def cohort(tmp_path: Path) -> CohortStore:
    return CohortStore.create(tmp_path / "cohort")


def table(folder: Path, text: str) -> pd.DataFrame:
    folder.mkdir(exist_ok=True)
    (folder / "participants.tsv").write_text(text.replace(" ", "\t"))
    found = bids.participants(folder)
    assert found is not None
    return found


def kept(cohort: CohortStore) -> dict[str, list[object]]:
    found = participants.read(cohort)
    assert found is not None
    return {name: [None if pd.isna(v) else v for v in found[name]] for name in found.columns}


def test_identifiers_and_codes_keep_their_zeros_and_numbers_are_numbers(tmp_path: Path) -> None:
    """A site `01` is no number, `NA` may be one's name, and one `89+` makes a column of ages text."""
    found = table(
        tmp_path,
        "participant_id age years site region score\n"
        "001 34 61 01 NA 0.5\n"
        "sub-002 n/a 89+ 12 EU 0\n"
        "sub-1 7 n/a n/a n/a n/a\n",
    )
    assert found["participant_id"].tolist() == ["sub-001", "sub-002", "sub-1"]
    assert found["age"].dropna().tolist() == [34, 7]
    assert found["score"].dropna().tolist() == [0.5, 0.0]
    assert found["years"].dropna().tolist() == ["61", "89+"]
    assert found["site"].dropna().tolist() == ["01", "12"]
    assert found["region"].dropna().tolist() == ["NA", "EU"]


def test_numbers_in_one_dataset_and_text_in_the_other(tmp_path: Path, cohort: CohortStore) -> None:
    """A whole number reads the same whether or not others of its column were missing."""
    participants.update(cohort, table(tmp_path / "a", "participant_id age sex\nsub-001 40 n/a\nsub-002 n/a n/a\n"))
    assert kept(cohort) == {"participant_id": ["sub-001", "sub-002"], "age": [40, None], "sex": [None, None]}
    participants.update(
        cohort, table(tmp_path / "b", "participant_id age sex hand\nsub-1 89+ F R\nsub-002 41.5 M n/a\n")
    )
    assert kept(cohort) == {
        "participant_id": ["sub-001", "sub-002", "sub-1"],
        "age": ["40", "41.5", "89+"],
        "sex": [None, "M", "F"],
        "hand": [None, None, "R"],
    }
    participants.update(cohort, table(tmp_path / "c", "participant_id age\nsub-1 90\nsub-002 n/a\n"))
    assert kept(cohort)["age"] == ["40", None, "90"]
    assert kept(cohort)["sex"] == [None, None, None]


def test_columns_that_are_empty_in_one_dataset(tmp_path: Path, cohort: CohortStore) -> None:
    participants.update(cohort, table(tmp_path / "a", "participant_id age\nsub-01 n/a\n"))
    participants.update(cohort, table(tmp_path / "b", "participant_id age\nsub-02 50\n"))
    participants.update(cohort, table(tmp_path / "c", "participant_id age\nsub-03 n/a\n"))
    assert kept(cohort)["age"] == [None, 50, None]


def test_one_answer_for_rows_that_stand_there_twice(tmp_path: Path) -> None:
    """The same row twice is one row, whatever is missing in it; rows that differ are none, for every reader alike."""
    found = table(
        tmp_path,
        "participant_id age sex\nsub-01 40 n/a\nsub-01 40 n/a\nsub-02 50 F\n02 51 F\nsub-03 60 M\n",
    )
    people = Participants(found)
    assert [people.state(f"sub-0{n}") for n in (1, 2, 3, 4)] == ["matched", "ambiguous", "matched", "missing"]
    assert people.values("sub-01") == (40, None)
    assert people.values("sub-02") == (None, None)
    unambiguous = people.unambiguous
    assert unambiguous is not None
    assert unambiguous["participant_id"].tolist() == ["sub-01", "sub-03"]
    assert people.doubles() == (
        "participants.tsv has rows that differ for sub-02: their columns are n/a; keep one row a participant",
        "participants.tsv has the same row more than once for sub-01",
    )
    assert people.warnings() == (*people.doubles(), "no scan belongs to sub-03 of participants.tsv")


def test_a_cohort_without_a_table(cohort: CohortStore) -> None:
    people = Participants(participants.read(cohort))
    assert people.unambiguous is None
    assert people.state("sub-01") == "missing"
    assert (people.columns, people.doubles(), people.warnings()) == ((), (), ())
