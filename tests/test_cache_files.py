"""The files of a cache: whole or not there, every damage found, any number of writers."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck import Teacher
from limbeck.cache import Store, verify
from limbeck.errors import RequestError, RunError
from tests.cached import augmented, cached, files, small_shards, teacher_network, write

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)


def test_killed_at_twenty_moments_it_goes_on_to_the_same_bytes(tmp_path):
    began = time.perf_counter()
    write(tmp_path / "whole")
    took = time.perf_counter() - began
    whole, moments = files(tmp_path / "whole"), random.Random(0)
    cut = 0
    for number in range(20):
        folder = tmp_path / f"killed-{number}"
        writer = FORK.Process(target=write, args=(folder,))
        writer.start()
        time.sleep(moments.uniform(0, took))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        if folder.exists():
            assert not verify(folder).damaged
            cut += sum(verify(folder).views.values()) < 240
        write(folder)
        assert files(folder) == whole, "the finished cache differs, or drafts are left"
    assert cut, "no kill came while it was writing"


def test_every_flipped_byte_of_a_shard_is_found_on_reading_and_by_verify(tmp_path):
    folder, data = tmp_path / "c", augmented()
    cached(folder, paths=()).fill([1])
    path = folder / "view-1" / "000001.npy"
    whole = path.read_bytes()
    batch = data.batch(torch.arange(16, 32), 1)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(RunError, match=r"view-1/000001.npy is damaged"):
            cached(folder, paths=())(batch)
        assert len(verify(folder).damaged) == 1
    path.write_bytes(whole)
    assert not verify(folder).damaged


def test_every_flipped_byte_of_the_key_is_found(tmp_path):
    folder = tmp_path / "c"
    cached(folder).fill([1])
    path = folder / "key.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x01]) + whole[place + 1 :])
        with pytest.raises(RequestError, match=r"key.json is damaged"):
            verify(folder)
    with pytest.raises(RequestError, match=r"key.json is damaged"):
        cached(folder).fill([1])


@pytest.mark.parametrize("keep", [0, 5, 200])
def test_a_truncated_shard_is_refused_by_name_and_can_be_written_again(tmp_path, keep):
    folder, data = tmp_path / "c", augmented()
    cached(folder).fill([1])
    path = folder / "view-1" / "000002.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    with pytest.raises(RunError, match=rf"000002.npy is damaged: it has {keep} bytes") as caught:
        cached(folder)(data.batch([40], 1))
    assert "delete this file" in str(caught.value)
    path.unlink()
    cached(folder).fill([1])
    assert path.read_bytes() == whole


def test_shards_put_in_each_others_place_are_found(tmp_path):
    folder = tmp_path / "c"
    cached(folder).fill([1, 2])
    one, other = folder / "view-1" / "000001.npy", folder / "view-2" / "000001.npy"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert len(verify(folder).damaged) == 2


def test_a_shard_opens_as_a_plain_numpy_file(tmp_path):
    cached(tmp_path / "c").fill([0])
    rows = np.load(tmp_path / "c" / "view-0" / "000000.npy")
    batch = augmented().batch(torch.arange(16))
    assert np.array_equal(rows["output"], Teacher(teacher_network())(batch).output.numpy())


def fill_part(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    cached(folder).fill([0, 1, 2], batch_size=8, part=(rank, 3))


def test_three_processes_write_what_one_writes(tmp_path):
    write(tmp_path / "one")
    writers = [FORK.Process(target=fill_part, args=(tmp_path / "three", rank)) for rank in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert files(tmp_path / "three") == files(tmp_path / "one")


def write_or_say(folder: Path, dtype: str, said: Path) -> None:
    try:
        write(folder, dtype)
    except RequestError as error:
        said.write_text(str(error))


def test_of_two_writers_with_different_settings_one_is_refused(tmp_path):
    folder, kinds = tmp_path / "c", ("float32", "float16")
    writers = [FORK.Process(target=write_or_say, args=(folder, kind, tmp_path / kind)) for kind in kinds]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    refused = [kind for kind in kinds if (tmp_path / kind).exists()]
    assert len(refused) == 1
    assert "another store" in (tmp_path / refused[0]).read_text()
    assert verify(folder).views == {0: 80, 1: 80, 2: 80}
    assert not verify(folder).damaged


def write_with_little_room(folder: Path, said: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # Files above some size are refused by the system in the way that a full disk refuses them.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
    try:
        cached(folder).fill([0, 1, 2], batch_size=8)
    except RunError as error:
        said.write_text(str(error))


def test_a_full_disk_leaves_a_cache_that_goes_on(tmp_path):
    write(tmp_path / "whole")
    writer = FORK.Process(target=write_with_little_room, args=(tmp_path / "c", tmp_path / "said"))
    writer.start()
    writer.join()
    said = (tmp_path / "said").read_text()
    assert "could not be written: File too large; 0 of 240 answers are stored" in said
    assert "it goes on where it was" in said
    write(tmp_path / "c")
    assert files(tmp_path / "c") == files(tmp_path / "whole")


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written: Not a directory; 0 of 80 answers"):
        cached(tmp_path / "file" / "c").fill([0])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="could not be written: Permission denied"):
        cached(tmp_path / "c").fill([0])


def test_a_writer_that_is_told_to_stop_keeps_whole_shards(tmp_path):
    def say(done, of):
        if done > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "c").fill([0], batch_size=8, progress=say)
    assert verify(tmp_path / "c").views == {0: 32}
    said = []
    cached(tmp_path / "c").fill([0], batch_size=8, progress=lambda done, of: said.append((done, of)))
    assert said[-1] == (48, 48)


def test_what_a_killed_writer_began_is_cleared_away(tmp_path):
    writer = FORK.Process(target=print)
    writer.start()
    writer.join()
    left = tmp_path / f".c.{writer.pid}.draft"
    left.mkdir()
    cached(tmp_path / "c").fill([0])
    assert not left.exists()


def test_verify_says_what_is_there(tmp_path):
    cached(tmp_path / "c", store=Store("float16")).fill([0, 2])
    (tmp_path / "c" / "view-2" / "000004.npy").unlink()
    text = verify(tmp_path / "c").text()
    assert "144 answers" in text
    assert "whole views of 80 samples: 0" in text
    assert "view 2: 64 of 80 answers" in text
    assert "no damage" in text
    with pytest.raises(RequestError, match="there is no teacher cache"):
        verify(tmp_path / "nothing")


def test_workers_and_batch_size_do_not_show(tmp_path):
    cached(tmp_path / "a").fill([1], batch_size=80)
    cached(tmp_path / "b").fill([1], batch_size=5, workers=2)
    assert files(tmp_path / "a") == files(tmp_path / "b")
