"""What ``train-cls`` writes: the model, models on the way, the log and its picture."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsltool.errors import (
    ExtraMissingError,
    ModelError,
    StoreExistsError,
    StoreUnfinishedError,
)
from wsltool.stages.options import TorchSettings
from wsltool.stages.pack import finished_attributes
from wsltool.stages.plan import Job
from wsltool.stages.report import Reporter
from wsltool.stages.training_progress import TrainingProgress
from wsltool.stages.training_wish import Wish
from wsltool.views.curves import training_curve

if TYPE_CHECKING:
    from wsltool.nets.distributed import World
    from wsltool.nets.initial import Start
    from wsltool.nets.models import Model
    from wsltool.nets.training import Feedback, Labelled, Validated

__all__ = ["SUFFIX", "Training", "alone", "check_kept", "finished_meta"]

SUFFIX = ".safetensors"


def finished_meta(path: Path) -> dict[str, Any]:
    """Return what a model file records of its making."""
    from wsltool.nets.model_file import read_header

    header = read_header(path) if path.is_file() and path.suffix == SUFFIX else None
    if header is None:
        raise ModelError("no model file of train-cls.")
    made: dict[str, Any] = header.provenance.get("made", {})
    return made


def _kept_path(job: Job, iteration: int) -> Path:
    return job.output.with_suffix(f".iter{iteration}{SUFFIX}")


def check_kept(job: Job, keep_at: Sequence[int], *, overwrite: bool) -> None:
    """Check that what ``--keep-at`` will write replaces nothing else.

    Raises
    ------
    StoreExistsError
        Something stands there that is no model of this training.
    """
    for iteration in keep_at:
        path = _kept_path(job, iteration)
        if not path.exists():
            continue
        made: dict[str, Any] = {}
        with contextlib.suppress(ModelError):
            made = finished_meta(path)
        if made.get("params") == json.loads(json.dumps(job.params)):
            continue
        if not made or not overwrite:
            raise StoreExistsError(
                f"{path}: --keep-at {iteration} would replace it, and it is no model of this "
                "training. Move it, or pass -o with another name."
            )


@contextlib.contextmanager
def alone(folder: Path, output: Path) -> Iterator[None]:
    """Hold the folder of a training against other processes; the lock ends with this one."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreUnfinishedError(
                f"{output}: another process is training it. Wait for that one, or pass -o."
            ) from error
        yield


@dataclass(frozen=True)
class Training:
    """One training: its job, its folder, and who hears of it."""

    job: Job
    held: dict[str, Any]
    folder: Path
    wish: Wish
    report: Reporter

    def train(
        self,
        start: Start,
        data: Labelled,
        feedback: Feedback | None,
        validated: Validated | None,
        world: World,
        torch_options: TorchSettings,
    ) -> Model:
        """Train what is missing."""
        from wsltool.nets.training import Place, Watcher, train_classifier

        num_images = len(data.label_NK) + (len(validated.data.label_NK) if validated else 0)
        place = Place(
            folder=self.folder,
            cache=self.wish.cache,
            device=torch_options.device,
            workers=torch_options.workers,
            world=world,
            checkpoint_s=self.wish.checkpoint_s,
        )
        with TrainingProgress(self.report, num_images) as progress:
            watcher = Watcher(
                features=progress.features,
                step=progress.step,
                record=progress.record,
                keep_at=self.wish.keep_at,
                keep=self.keep,
            )
            return train_classifier(
                start,
                data,
                place,
                self.wish.config,
                feedback=feedback,
                validated=validated,
                watcher=watcher,
            )

    def keep(self, iteration: int, model: Model) -> None:
        """Keep the model as it is after an iteration, beside the output."""
        path = _kept_path(self.job, iteration)
        self._write(path, model)
        self.report.note(f"{path}: the model after {iteration} iterations.")

    def _write(self, path: Path, model: Model) -> None:
        from wsltool.nets.models import save_model

        made = finished_attributes(self.job, self.held)
        save_model(path, model, {**model.provenance, "made": made})

    def publish(self, trained: Model) -> None:
        """Put log, its picture and model in place, the model last."""
        log = self.folder / "log.jsonl"
        shutil.copyfile(log, self.job.output.with_suffix(".log.jsonl"))
        self._draw(log)
        scratch = self.folder / f"model{SUFFIX}"
        self._write(scratch, trained)
        scratch.replace(self.job.output)

    def _draw(self, log: Path) -> None:
        records = [json.loads(line) for line in log.read_text().splitlines()]
        try:
            training_curve(records, self.job.output.with_suffix(".curve.png"), self.job.output.stem)
        except ExtraMissingError as error:
            self.report.note(f"no picture of the training: {error}")
