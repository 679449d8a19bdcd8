"""How the images' classes find the network's, and which options and models are refused."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from wsltool.errors import ModelError, StoreExistsError, UsageError
from wsltool.nets.models import load_model, save_model
from wsltool.stages.cam import cam
from wsltool.stages.ingest import ingest_folder

from . import tiny_networks
from .colours import (
    CPU,
    ME,
    A,
    by_hand,
    made,
    small_weights,
)
from .making import Ears, arrays, meta, put_picture

pytestmark = pytest.mark.usefixtures("one_thread")


class TestClasses:
    """How the images' classes find the network's."""

    def scores(self, images, model, **options):
        return made(images, model, classes="all", **options)

    @pytest.mark.parametrize("model", ["named", "shuffled"])
    def test_by_name(self, images, tmp_path, model):
        """In the order of the images, whatever the network's order; a class too many is unseen."""
        plain = self.scores(images, "colours")
        found = self.scores(images, model, output=tmp_path / "o.zarr")
        for name in ("class_score", "map_class", "map_score", "map"):
            np.testing.assert_allclose(found[name], plain[name], rtol=1e-6)

    def test_probabilities_are_over_all_classes_of_the_network(self, images, tmp_path):
        logit = self.scores(images, "shuffled")["class_score"].astype(np.float64)
        found = self.scores(images, "shuffled", scores="probability", output=tmp_path / "o.zarr")
        assert (found["class_score"].sum(axis=1) < 1).all()
        ratio = np.log(found["class_score"][:, 0] / found["class_score"][:, 1])
        np.testing.assert_allclose(ratio, logit[:, 0] - logit[:, 1], rtol=1e-4, atol=1e-4)

    def test_a_subset(self, folder, tmp_path):
        shutil.rmtree(folder / "green")
        images = ingest_folder(folder)
        found = self.scores(images, "named")
        assert found["class_name"].tolist() == ["blue", "red"]
        row = found["image_id"].tolist().index("red/a.png")
        _, scores = by_hand(A)
        np.testing.assert_allclose(found["class_score"][row], scores[[2, 0]], rtol=1e-6)

    def test_a_name_that_the_network_has_twice_is_no_match(self, folder, tmp_path):
        """Red and blue are told apart, crane is not."""
        (folder / "green").rename(folder / "crane")
        line = (
            "set.images.zarr: has 3 classes, .*:twins 4; not matched: blue, crane, red, …. Ingest "
            "with --classes FILE in the model's order, or train the model on these classes "
            r"\(wsltool train-cls\)\.$"
        )
        with pytest.raises(ModelError, match=line):
            self.scores(ingest_folder(folder), "twins")
        (folder / "crane").rename(tmp_path / "crane")
        images = ingest_folder(folder, output=tmp_path / "two.zarr")
        assert self.scores(images, "twins")["class_name"].tolist() == ["blue", "red"]

    def test_by_id(self, folder, tmp_path):
        """A class list with ids: these decide, not the order and not the names."""
        weights = tmp_path / "trained.safetensors"
        trained = load_model("small_gap", weights=small_weights(tmp_path))
        trained.class_id = ["n00000002", "n00000003", "n00000001"]
        trained.class_name = ["x", "y", "z"]
        save_model(weights, trained, {})
        listed = "n00000001 0 red\nn00000002 1 green\nn00000003 2 blue\n"
        (tmp_path / "ids.txt").write_text(listed)
        by_ids = ingest_folder(folder, classes=tmp_path / "ids.txt", output=tmp_path / "i.zarr")
        found = arrays(cam(by_ids, model=str(weights), classes="all", **CPU))
        trained.class_id = trained.class_name = None
        save_model(tmp_path / "bare.safetensors", trained, {})
        bare = arrays(
            cam(
                by_ids,
                model=str(tmp_path / "bare.safetensors"),
                classes="all",
                output=tmp_path / "bare.zarr",
                **CPU,
            )
        )
        np.testing.assert_array_equal(found["class_score"], bare["class_score"][:, [2, 0, 1]])

    def test_names_in_another_order_are_matched_not_counted(self, images, tmp_path):
        plain = self.scores(images, "colours")
        found = self.scores(images, "other_order", output=tmp_path / "o.zarr")
        np.testing.assert_array_equal(found["class_score"], plain["class_score"][:, [1, 0, 2]])

    def test_other_names(self, folder):
        (folder / "green").rename(folder / "teal")
        with pytest.raises(
            ModelError, match=r"has 3 classes, .*named 3; not matched: teal, …\. Ingest with"
        ):
            self.scores(ingest_folder(folder), "named")

    def test_a_network_without_names_needs_as_many_classes(self, folder, tmp_path):
        put_picture(folder / "white/f.png", (8, 8))
        with pytest.raises(
            ModelError, match=r"has 4 classes, .*colours 3; not matched: blue, green, red, white"
        ):
            self.scores(ingest_folder(folder), "colours")


class TestOptions:
    """What is refused before an output is claimed, and what counts as the same command."""

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"classes": "some"}, UsageError, "--classes must be present, topK"),
            ({"scales": ()}, UsageError, "--scales must be numbers above 0, got []."),
            ({"scales": (1, -1)}, UsageError, "--scales must be numbers above 0, got [1.0, -1.0]."),
            ({"scales": (float("nan"),)}, UsageError, "--scales must be numbers above 0, got [nan"),
            ({"scales": (1e6,)}, ModelError, "scale must be above 0 and give at most 8192 pixels"),
            ({"input_size": 0}, UsageError, "--input-size must be in [1, 8192], got 0."),
            ({"fit": "pad"}, UsageError, '--fit must be warp, crop or letterbox, got "pad".'),
            ({"scores": "raw"}, UsageError, '--scores must be logit or probability, got "raw".'),
            ({"map_dtype": "int8"}, UsageError, '--map-dtype must be float32 or float16, got "int'),
            ({"precision": "fp8"}, UsageError, "--precision must be float32, tf32, bf16 or fp16"),
            ({"batch_size": 0}, UsageError, "--batch-size must be in [1, "),
            ({"workers": -1}, UsageError, "--workers must be in [0, 1024), got -1."),
            ({"device": "gpu"}, UsageError, "--device must be auto, cpu, cuda, cuda:N or mps"),
            ({"input_size": 3}, ModelError, ":colours on a picture of 3x3: failed ("),
        ],
    )
    def test_wrong_options(self, images, options, error, message):
        ears = Ears()
        with pytest.raises(error, match=re.escape(message)) as raised:
            made(images, report=ears, **options)
        assert "\n" not in str(raised.value)
        assert ears.announced == []
        assert not list(images.parent.glob("s.cam*"))

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            ("resnet5", 'there is no model "resnet5"; expected a .safetensors file, a network'),
            ("no.such:thing", "no.such:thing: module no.such cannot be imported"),
            (f"{ME}:colour", f'{ME}:colour: {ME} has no function "colour". Did you mean colours?'),
            ("gone.safetensors", "gone.safetensors"),
        ],
    )
    def test_wrong_models(self, images, model, message):
        with pytest.raises(ModelError, match=f"^{re.escape(message)}") as raised:
            cam(images, model=model, **CPU)
        assert "\n" not in str(raised.value)

    def test_the_same_again_is_left_alone(self, images):
        cam(images, model=f"{ME}:colours", **CPU)
        ears = Ears()
        output = cam(images, model=f"{ME}:colours", batch_size=2, report=ears, **CPU)
        assert ears.notes == [f"{output}: finished already, left alone."]

    @pytest.mark.parametrize(
        ("model", "options", "message"),
        [
            ("colours", {"flip": True}, "with --flip False, now True"),
            ("colours", {"scales": (1, 2)}, r"with --scales \[1.0\], now \[1.0, 2.0\]"),
            ("colours", {"input_size": 16}, "with --input-size 8, now 16"),
            ("colours", {"limit": 2}, "from all rows, now 2 of 5 rows"),
            ("named", {}, f"with --model {ME}:colours, now {ME}:named"),
        ],
    )
    def test_another_command_is_told(self, images, model, options, message):
        cam(images, model=f"{ME}:colours", **CPU)
        with pytest.raises(StoreExistsError, match=message):
            cam(images, model=f"{ME}:{model}", **CPU, **options)

    def test_a_factory_whose_preprocessing_changed_is_another_model(self, images, monkeypatch):
        cam(images, model=f"{ME}:colours", **CPU)
        monkeypatch.setattr(tiny_networks, "colours", tiny_networks.other_mean)
        with pytest.raises(StoreExistsError, match="from another model than"):
            cam(images, model=f"{ME}:colours", **CPU)

    def test_weights_are_known_by_their_content(self, images, tmp_path, monkeypatch):
        """The same file under another path is the same model; changed content is not."""
        weights = small_weights(tmp_path)
        output = cam(images, model="small_gap", weights=weights, **CPU)
        assert meta(output)["inputs"]["model"]["path"] == "small0.safetensors"
        copy = tmp_path / "copy.safetensors"
        copy.write_bytes(weights.read_bytes())
        ears = Ears()
        cam(images, model="small_gap", weights=copy, report=ears, **CPU)
        assert ears.notes == [f"{output}: finished already, left alone."]
        copy.write_bytes(small_weights(tmp_path, seed=1).read_bytes())
        with pytest.raises(StoreExistsError, match=r"from another model than copy\.safetensors is"):
            cam(images, model="small_gap", weights=copy, **CPU)

    def test_a_model_file_is_known_wherever_one_stands(self, images, tmp_path, monkeypatch):
        trained = load_model("small_gap", weights=small_weights(tmp_path))
        save_model(tmp_path / "mine.safetensors", trained, {})
        output = cam(images, model=str(tmp_path / "mine.safetensors"), **CPU)
        monkeypatch.chdir(tmp_path)
        ears = Ears()
        cam(images, model="mine.safetensors", report=ears, **CPU)
        assert ears.notes == [f"{output}: finished already, left alone."]
