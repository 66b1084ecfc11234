"""Arrays of a folder: files of equal content are read from one of them, and only while somebody says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.arrays import read_array, same_files_once, write_arrays
from pipelines.storage import file_sha256


def mapped(address: int) -> str:
    """The file that lies in memory at an address."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        low, high = (int(end, 16) for end in line.split(" ", 1)[0].split("-"))
        if low <= address < high:
            return line.split(maxsplit=5)[-1]
    return ""


def test_files_of_equal_content_lie_in_memory_once(tmp_path: Path) -> None:
    for name, values in {"a": [1, 2], "b": [1, 2], "c": [3, 4]}.items():
        write_arrays(tmp_path / name, {"codes": np.array(values)})
    digests = {f"{name}/codes.npy": file_sha256(tmp_path / name / "codes.npy") for name in "abc"}
    with same_files_once(tmp_path, digests):
        read = {name: read_array(tmp_path / name / "codes.npy") for name in "cba"}
        elsewhere = read_array(tmp_path / "b" / ".." / "b" / "codes.npy")
    assert {name: values.tolist() for name, values in read.items()} == {"a": [1, 2], "b": [1, 2], "c": [3, 4]}
    files = {name: mapped(values.ctypes.data) for name, values in read.items()}
    assert files == {name: str(tmp_path / source / "codes.npy") for name, source in zip("abc", "aac", strict=True)}
    assert read["a"] is read["b"], "one mapping, so one entry of a page table"
    assert elsewhere.tolist() == [1, 2]
    after = read_array(tmp_path / "b" / "codes.npy")
    assert mapped(after.ctypes.data) == str(tmp_path / "b" / "codes.npy")
