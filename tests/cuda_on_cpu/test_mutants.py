"""A few of the mistakes that mutants.py plants, one for each kind of check; and that all can be planted."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import build, mutants
from .mutations import MUTATIONS, Mutation

BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mutants") / "expected.npz"
    mutants.save_expected(path)
    return path


@pytest.mark.parametrize(
    ("name", "by", "check"),
    [
        ("the first entry for all", "plain", "wrong"),
        ("threads without a tap", "plain", "barrier"),
        ("atomicAdd for a sum in order", "plain", "depends on the order of threads"),
        ("skip of rows that are not there", "asan", "heap-buffer-overflow"),
        ("every tap writes lag 0", "race", "data race"),
    ],
)
def test_a_mistake_is_found(expected: Path, name: str, by: str, check: str) -> None:
    try:
        outcome = mutants.find(BY_NAME[name], expected, builds=(by,))
    except build.Unavailable as missing:
        pytest.skip(str(missing))
    assert outcome.build == by
    assert check in outcome.check


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_mistake_can_be_planted(mutation: Mutation) -> None:
    source = (build.KERNELS / mutation.file).read_text()
    assert mutation.of(source) != source


def test_a_mistake_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="holds 0 times, not once"):
        Mutation("", "none", MUTATIONS[0].file, "there is no such text", "").of("")
