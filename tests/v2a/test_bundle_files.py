"""The files of a bundle: only listed, regular files, and the bytes that were hashed."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from v2a.bundle import FileRef, load_bundle
from v2a.bundle_files import read_sealed
from v2a.errors import BundleError

CONTENT = b"x" * (3 << 20) + b"end"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


def ref(content: bytes = CONTENT) -> FileRef:
    return FileRef(file="file", sha256=hashlib.sha256(content).hexdigest())


def test_the_bytes_that_were_hashed_come_back(file: Path) -> None:
    sizes: list[int] = []
    assert read_sealed(file, ref(), sizes.append) == CONTENT
    assert sum(sizes) == len(CONTENT)


def test_a_file_that_is_cut_off_while_it_is_read_is_no_longer_what_it_says(file: Path) -> None:
    """The rest would be zeros, with the hash of a file without them."""

    def cut(_size: int) -> None:
        os.truncate(file, 2 << 20)

    assert read_sealed(file, ref(b"x" * (2 << 20)), cut) == b"x" * (2 << 20)


def linked_file(bundle: Path) -> str:
    file = bundle / "graphs/denoise.onnx"
    file.rename(bundle.parent / "outside")
    file.symlink_to(bundle.parent / "outside")
    return "denoise.onnx: is a link"


def linked_folder(bundle: Path) -> str:
    shutil.move(bundle / "graphs", bundle.parent / "outside")
    (bundle / "graphs").symlink_to(bundle.parent / "outside")
    return "graphs: is a link"


def fifo(bundle: Path) -> str:
    (bundle / "graphs/denoise.onnx").unlink()
    os.mkfifo(bundle / "graphs/denoise.onnx")
    return "denoise.onnx: is not a regular file"


def folder_for_a_file(bundle: Path) -> str:
    (bundle / "graphs/denoise.onnx").unlink()
    (bundle / "graphs/denoise.onnx").mkdir()
    return "denoise.onnx: is not a regular file"


def unlisted_file(bundle: Path) -> str:
    (bundle / "graphs/w.bin").write_bytes(b"1234")
    return "w.bin: is not in the manifest"


def unlisted_fifo(bundle: Path) -> str:
    os.mkfifo(bundle / "pipe")
    return "pipe: is not in the manifest"


def unlisted_link(bundle: Path) -> str:
    (bundle / "dangling").symlink_to("nowhere")
    return "dangling: is a link"


@pytest.mark.parametrize(
    "spoil",
    [linked_file, linked_folder, fifo, folder_for_a_file, unlisted_file, unlisted_fifo,
     unlisted_link],
)  # fmt: skip
@pytest.mark.timeout(10)
def test_what_is_no_plain_file_of_the_manifest_is_refused(
    bundle_dir: Path, spoil: Callable[[Path], str]
) -> None:
    fault = spoil(bundle_dir)
    with pytest.raises(BundleError, match=fault):
        load_bundle(bundle_dir)


def test_the_bundle_may_be_reached_by_a_link(bundle_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle_dir)
    by_link, itself = load_bundle(tmp_path / "current"), load_bundle(bundle_dir)
    assert by_link.manifest == itself.manifest


def test_an_embedding_that_was_replaced_after_the_check_is_refused(bundle_dir: Path) -> None:
    bundle = load_bundle(bundle_dir)
    file = bundle_dir / "embeddings/reach.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(BundleError, match=r"reach\.npy: sha256 is .* the file was changed"):
        bundle.instruction_tokens("reach the cube")
