"""The definitions are where the package says, and cost nothing until they are asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import equiconv
from equiconv import reference


def test_every_definition_is_there() -> None:
    folder = Path(str(reference.__file__)).parent
    assert sorted(reference.__all__) == sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__")
    for name in reference.__all__:
        assert getattr(equiconv.reference, name).__doc__


def test_from_a_fresh_start() -> None:
    code = (
        "import sys, equiconv\n"
        "assert 'equiconv.reference.ponita' not in sys.modules\n"
        "print(equiconv.reference.fft_conv.fft_conv.__name__, hasattr(equiconv.reference, 'nothing'))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["fft_conv", "False"]
