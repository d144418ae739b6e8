"""A test that kills its worker once."""

import os, signal, time
import pytest
from application import *


@pytest.mark.parametrize("number", range(12))
def test_some(db_database, make_patient, number):
    make_patient()
    if number == 5 and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    assert patients() == 21
