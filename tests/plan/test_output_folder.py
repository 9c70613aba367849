"""The folder of --sae-out is created and tested before anything is measured."""

import os

import pytest

from sae_checks import errors
from sae_checks.plan import output_folder


def test_it_is_created_with_its_parents(tmp_path):
    """A new folder is made and left empty; a folder that exists keeps what is in it."""
    out = tmp_path / "a" / "b"
    output_folder.prepare(out)
    assert list(out.iterdir()) == []
    (out / "mine.txt").touch()
    (out / "record.json").touch()
    (out / "report").mkdir()
    output_folder.prepare(out)
    assert {path.name for path in out.iterdir()} == {"mine.txt", "record.json", "report"}


def _file(out):
    out.touch()


def _file_above(out):
    out.parent.joinpath("file").touch()
    out.symlink_to(out.parent / "file" / "below")


def _no_leave(out):
    out.mkdir(mode=0o500)
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")


def _folder_for_a_file(out):
    (out / "junit.xml").mkdir(parents=True)


def _file_for_a_folder(out):
    out.mkdir()
    (out / "report").touch()


@pytest.mark.parametrize("spoil", [_file, _file_above, _no_leave, _folder_for_a_file, _file_for_a_folder])
def test_what_cannot_be_written_is_refused(tmp_path, spoil):
    """A file, no leave, or something else where a file of the run belongs."""
    spoil(tmp_path / "out")
    with pytest.raises(errors.UsageError, match=r"--sae-out=.* cannot be written"):
        output_folder.prepare(tmp_path / "out")
