import logging
import zipfile

import numpy as np
import pytest

from fusion.errors import FusionError
from fusion.output import check_output, write_whole
from fusion.space.training.recipe import TrainConfig
from tests.fitted import fit_head

SMALL = TrainConfig.of("paper", epochs=4, batch_size=32)
DIMS = (4, 8)


@pytest.fixture
def embeddings():
    return np.random.default_rng(0).normal(size=(100, 12)).astype(np.float32)


@pytest.fixture
def cut(embeddings, tmp_path, monkeypatch):
    """A training that was stopped in its third epoch."""

    def stop(self):
        if self.current_epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fusion.space.training.fit._Training.on_train_epoch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            fit_head(embeddings, SMALL, DIMS, folder=tmp_path)
    return tmp_path


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
@pytest.mark.parametrize("name", ["last", "best"])
def test_a_damaged_checkpoint_costs_time_but_no_byte(
    embeddings, cut, tmp_path, caplog, damage, name
):
    path = cut / "checkpoints" / f"{name}.ckpt"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as parts:
        tensor = max((parts.read(name) for name in parts.namelist()), key=len)
    content[content.index(tensor)] ^= 1
    path.write_bytes(
        {"truncated": bytes(content[:-50]), "flipped": bytes(content), "empty": b""}[damage]
    )
    with caplog.at_level(logging.WARNING):
        resumed = fit_head(embeddings, SMALL, DIMS, folder=cut, resume=True)
    whole = fit_head(embeddings, SMALL, DIMS)
    np.testing.assert_array_equal(resumed.transform(embeddings), whole.transform(embeddings))
    assert f"{name}.ckpt is damaged, training starts anew" in caplog.text


def stopped_at_the_end(embeddings, folder, monkeypatch, where):
    """A training that has done its epochs, and is stopped in what follows."""

    def stop(*_, **options):
        if not options:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"fusion.space.training.fit.{where}", stop)
        with pytest.raises(KeyboardInterrupt):
            fit_head(embeddings, SMALL, DIMS, folder=folder)
    return {path.name for path in (folder / "checkpoints").iterdir()}


def test_without_the_best_checkpoint_the_last_is_not_gone_on_with(
    embeddings, tmp_path, monkeypatch
):
    left = stopped_at_the_end(embeddings, tmp_path, monkeypatch, "_keep")
    assert left == {"best.ckpt", "last.ckpt"}
    (tmp_path / "checkpoints" / "best.ckpt").unlink()
    resumed = fit_head(embeddings, SMALL, DIMS, folder=tmp_path, resume=True)
    whole = fit_head(embeddings, SMALL, DIMS)
    np.testing.assert_array_equal(resumed.transform(embeddings), whole.transform(embeddings))


def test_the_last_checkpoint_is_the_first_to_go(embeddings, tmp_path, monkeypatch):
    left = stopped_at_the_end(embeddings, tmp_path, monkeypatch, "shutil.rmtree")
    assert left == {"best.ckpt"}


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert path.read_text(encoding="utf-8") == "old"
    write_whole(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


def test_what_a_kill_left_before_the_first_whole_file_is_no_obstacle(tmp_path):
    (tmp_path / "config.yaml.partial").touch()
    check_output(tmp_path, resume=True, marks=("config.yaml",), kind="a run folder")
    check_output(tmp_path)
    (tmp_path / "film.partial").touch()  # somebody's, which a run folder's --overwrite would clear
    with pytest.raises(FusionError, match="exists and is not empty"):
        check_output(tmp_path, resume=False, marks=("config.yaml",), kind="a run folder")
