"""A few of the mistakes that mutants.py plants, one for each kind of check; and that all can be planted."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import build, mutants
from .checks import Mutation
from .mutants import SUBJECTS, Subject

BY_NAME = {subject.mutation.name: subject for subject in SUBJECTS if subject.mutation}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutants")
    mutants.save_expected(folder)
    return folder


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


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_a_mistake_can_be_planted(subject: Subject) -> None:
    assert subject.mutation
    source = (build.KERNELS / subject.mutation.file).read_text()
    assert subject.mutation.of(source) != source


def test_a_mistake_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="holds 0 times, not once"):
        Mutation("", "none", "fft_conv.cu", "there is no such text", "").of("")


def test_there_are_many_of_many_kinds() -> None:
    kinds = {subject.mutation.kind for subject in SUBJECTS if subject.mutation}
    assert len(SUBJECTS) >= 40
    assert kinds >= {
        "missing barrier",
        "wrong index",
        "missing guard",
        "+= for atomicAdd",
        "too little shared memory",
    }
    assert len({str(subject) for subject in SUBJECTS}) == len(SUBJECTS)
