"""The pages of the guide that the code writes are as the code would write them now."""

import re
from pathlib import Path

import pytest

import qsm_dask
from docs import generate
from qsm_dask import resources


@pytest.mark.parametrize("name", ["quantities.md", "pipelines.md", "stages.md", "python.md"])
def test_a_page_is_what_the_code_says(name):
    assert (generate.FOLDER / name).read_text(encoding="utf-8") == generate.pages()[name], "run `make docs`"


def test_nothing_is_left_out():
    pages = generate.pages()
    assert set(re.findall(r"^### `([^`]+)`", pages["stages.md"], re.MULTILINE)) == set(qsm_dask.STAGES)
    assert re.findall(r"^## `([^`]+)`", pages["pipelines.md"], re.MULTILINE) == list(resources.names("pipelines"))
    assert set(re.findall(r"^\| `([^`]+)`", pages["quantities.md"], re.MULTILINE)) == set(qsm_dask.QUANTITIES)
    assert re.findall(r"^## `([^`]+)`", pages["python.md"], re.MULTILINE) == qsm_dask.__all__


def test_pages_do_not_depend_on_the_machine():
    here = re.escape(str(Path(__file__).parents[1]))
    assert not any(re.search(rf" at 0x|/home/|{here}", page) for page in generate.pages().values())


def test_every_link_of_the_guide_leads_somewhere():
    for page in generate.FOLDER.glob("*.md"):
        for target in re.findall(r"\]\(((?!http)[^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
