"""What the documents show runs as it stands there, with the names that each takes from its reader."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import equiconv

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def given(document: str) -> dict[str, Any]:
    """What the document's reader has."""
    N, E, K, C = 20, 60, 4, 8
    return {
        "docs/orchid.md": {
            "equiconv": equiconv,
            "prompt": torch.randn(2, 5, 256),
            "token": torch.randn(2, 1, 256),
            "x": torch.randn(1, 1024, 8),
            "filter": torch.randn(8, 1024),
        },
        "docs/ponita.md": {
            "edge_index": torch.randint(N, (2, E)),
            "N": N,
            "x": torch.randn(N, C),
            "basis": torch.randn(E, K),
            "weight": torch.randn(K, C),
        },
    }.get(document, {})


@pytest.mark.parametrize("document", ["README.md", "docs/drop-in.md", "docs/orchid.md", "docs/ponita.md"])
def test_examples_run(document: str) -> None:
    blocks = CODE.findall((ROOT / document).read_text())
    assert blocks
    names = given(document)
    for block in blocks:
        exec(compile(block, document, "exec"), names)
    results = [v for v in names.values() if isinstance(v, torch.Tensor) and v.is_floating_point()]
    assert all(result.isfinite().all() for result in results)
