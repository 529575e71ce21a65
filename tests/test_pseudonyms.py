"""Names that tell nobody who was scanned, unless they hold the secret."""

import pytest

from qsm_dask.errors import ConfigError
from qsm_dask.pseudonyms import VARIABLE, Pseudonyms
from qsm_dask.scan import ScanKey

PHRASE = "0123456789abcdef"
KEY = ScanKey.parse("sub-01_ses-1")


def test_a_name_is_the_hmac_of_the_key() -> None:
    """By `printf sub-01_ses-1 | openssl dgst -sha256 -hmac 0123456789abcdef`."""
    assert Pseudonyms(PHRASE)(KEY) == "scan-b8291573c5c4"


def test_another_secret_gives_other_names() -> None:
    assert Pseudonyms(PHRASE[::-1])(KEY) != Pseudonyms(PHRASE)(KEY)


@pytest.mark.parametrize("environment", [{}, {VARIABLE: "short"}])
def test_without_a_secret_it_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=VARIABLE):
        Pseudonyms.from_environment(environment)
