"""Locks: what they serve, and what is wrong in a file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gpuprov.errors import RefusedError, SourceErrors
from gpuprov.fleet import locks
from gpuprov.fleet.locks import Lock, Request, glibc_class, request
from gpuprov.fleet.pip_python import Target
from gpuprov.fleet.pip_tool import Pin
from gpuprov.fleet.wheel_request import check_variant, variant_of

if TYPE_CHECKING:
    from pathlib import Path

HOST = Target("3.11", "x86_64", "2.36")
TORCH = Pin("torch", "2.13.0+cpu", "a" * 64, of_torch=True)
CUDA = (Pin("torch", "2.13.0", "b" * 64), Pin("nvidia-cudnn-cu13", "9.2", "c" * 64))
UV = Pin("uv", "0.9.9", "d" * 64)


def lock(variant: str = "cpu", glibc: str = "2.28", pins: tuple[Pin, ...] = (TORCH,), managed: bool = False) -> Lock:
    wanted = request(["torch==2.13.0"], Target("3.11", "x86_64", glibc), variant, managed)
    return Lock(wanted, pins, UV, "2026-11-25")


def ask(variant: str = "", host: Target = HOST, managed: bool = False) -> Request:
    return request(["torch==2.13.0"], host, variant, managed)


def test_a_lock_reads_back_as_it_was_written(tmp_path: Path) -> None:
    made = lock()
    path = tmp_path / made.name
    path.write_text(made.text())
    assert locks.read(str(path)) == made
    assert locks.read_all(str(tmp_path)) == [made]
    assert made.name == f"torch-2.13.0-cpu-py3.11-x86_64-glibc2.28-{made.name[-13:]}"
    assert "://" not in made.text()


def test_the_order_of_names_means_nothing() -> None:
    one, other = (request(names, HOST, "cpu") for names in (["b", "torch==1", "b"], ["torch==1", "b"]))
    assert one == other
    assert request(["numpy"], HOST, "cpu").variant == "", "only torch has variants"


@pytest.mark.parametrize(
    ("wanted", "has_gpu", "made", "served"),
    [
        (ask(), False, lock(), True),
        (ask("cpu"), True, lock(), True),
        (ask(), True, lock(), False),  # a CPU build on a host with GPUs only when somebody says so
        (ask(), True, lock("cu130", pins=CUDA), True),
        (ask(), False, lock("cu130", pins=CUDA), False),
        (ask("cu126"), True, lock("cu130", pins=CUDA), False),
        (ask(host=replace(HOST, glibc="2.27")), False, lock(), False),
        (ask(host=replace(HOST, glibc="2.28")), False, lock(), True),
        (ask(host=replace(HOST, glibc="")), False, lock(), False),
        (ask(host=replace(HOST, python="3.12")), False, lock(), False),
        (ask(host=replace(HOST, machine="aarch64")), False, lock(), False),
        (ask(managed=True), False, lock(), False),
        (ask(managed=True), False, lock(managed=True), True),
        (request(["torch==2.13.0", "numpy"], HOST), False, lock(), False),
    ],
)
def test_what_a_lock_serves(wanted: Request, has_gpu: bool, made: Lock, served: bool) -> None:
    assert made.serves(wanted, has_gpu) is served


def test_the_best_lock_is_the_one_for_the_newest_glibc() -> None:
    older, newer, too_new = lock(glibc="2.17"), lock(glibc="2.34"), lock(glibc="2.39")
    assert locks.best([too_new, older, newer], ask(), False) == newer
    assert locks.best([too_new], ask(), False) is None


def test_glibc_classes() -> None:
    assert [glibc_class(one) for one in ("2.17", "2.27", "2.36", "2.39", "2.50")] == [
        *("2.17", "2.17", "2.34", "2.39", "2.39"),
    ]
    with pytest.raises(RefusedError, match=r"glibc 2\.12 is older than 2\.17"):
        glibc_class("2.12")


@pytest.mark.parametrize(
    ("packages", "variant"),
    [
        ([("numpy", "2.0")], ""),
        ([("torch", "2.13.0+cpu")], "cpu"),
        ([("torch", "2.13.0")], "cpu"),
        ([("torch", "2.13.0+cu130")], "cu130"),
        ([("torch", "2.13.0"), ("nvidia-cuda-runtime", "13.0.48")], "cu130"),
        ([("torch", "2.9.0"), ("nvidia-cuda-runtime-cu12", "12.8.90")], "cu128"),
        ([("torch", "2.9.0"), ("nvidia-cudnn-cu12", "9.1")], "cuda"),
        ([("torch", "2.9.0"), ("nvidia-ml-py", "13")], "cpu"),
    ],
)
def test_which_build_it_is(packages: list[tuple[str, str]], variant: str) -> None:
    assert variant_of(packages) == variant
    check_variant(variant, packages)
    if variant:
        with pytest.raises(RefusedError, match=f"is the build {variant}, and cu999 is wanted"):
            check_variant("cu999", packages)


def test_everything_wrong_in_a_lock_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.write_text(lock().text() + "numpy>=2\n# a comment\n\nscipy==1.0 --hash=md5:0\n")
    with pytest.raises(SourceErrors) as error:
        locks.read(str(path))
    assert [(one.position.line, one.code) for one in error.value.problems if one.position] == [
        *((3, "lock-line"), (6, "lock-line")),
    ]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("torch==2.13.0", "the first line is not"),
        ("# gpuprov lock [1]", "the first line is not"),
        ('# gpuprov lock {"schema": 9}', "schema 9 was found, 1 is known"),
        ('# gpuprov lock {"schema": 1, "names": "torch"}', "the header lacks python, machine, glibc, variant, names"),
    ],
)
def test_a_header_that_is_none(tmp_path: Path, header: str, words: str) -> None:
    path = tmp_path / "a.lock"
    path.write_text(header + "\n")
    with pytest.raises(SourceErrors) as error:
        locks.read(str(path))
    assert words in error.value.problems[0].message
