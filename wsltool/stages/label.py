"""Stage ``label``: an annotator says which clusters are distractors."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from wsltool.errors import DatasetError, StoreError, StoreUnfinishedError, UsageError, WslError
from wsltool.localize.oracle import OracleRule
from wsltool.stages.label_answers import Annotation, by_answers, by_chance, by_person, by_truth
from wsltool.stages.label_oracle import OracleFrom
from wsltool.stages.label_samples import features_behind
from wsltool.stages.options import PathLike, check_choice, check_range, check_seed
from wsltool.stages.pack import finished_attributes
from wsltool.stages.plan import Job, claim, output_for
from wsltool.stages.report import Reporter
from wsltool.stages.run import open_input
from wsltool.stores.labels import Labels, annotation_order, check_labels, read_labels, write_labels
from wsltool.stores.lineage import fingerprint_store
from wsltool.stores.store import Store

__all__ = ["label"]

_REVISION = 1
_SUFFIX = ".json"
_RANDOM = "random"
_MOST_SAMPLES = 100
_LAST_PORT = 65535

# Options that only some annotators read: their defaults, and who reads them.
_DEFAULTS: dict[str, Any] = {
    "oracle_from": None,
    "oracle_rule": "mean",
    "like": None,
    "features": None,
    "samples": 12,
    "port": 0,
    "browser": True,
    "images": None,
    "seed": 0,
    "output": None,
}
_READ = {
    "page": {"features", "samples", "port", "browser", "images", "seed", "output"},
    "export": {"features", "samples", "images", "seed"},
    "answers": {"output"},
    "oracle": {"oracle_from", "oracle_rule", "features", "output"},
    "random": {"like", "seed", "output"},
}
_NAMES = {"browser": "--no-browser", "output": "-o"}
_SAID = {
    "page": "the page",
    "export": "--export",
    "answers": "--answers",
    "oracle": "--oracle with a truth",
    "random": "--oracle random",
}


def label(
    input: PathLike,
    *,
    answers: PathLike | None = None,
    oracle: PathLike | None = None,
    oracle_from: OracleFrom | None = None,
    oracle_rule: OracleRule = "mean",
    like: PathLike | None = None,
    features: PathLike | None = None,
    samples: int = 12,
    export: PathLike | None = None,
    port: int = 0,
    browser: bool = True,
    images: PathLike | None = None,
    seed: int = 0,
    output: PathLike | None = None,
    overwrite: bool = False,
    report: Reporter | None = None,
) -> Path:
    """Mark each cluster as object, distractor or unsure (Kolesnikov and Lampert 2016, step iii).

    One annotator of three: a person, who is asked by a local web page if nothing else is given;
    a file of answers; an oracle.

    Parameters
    ----------
    input : path
        A ``clusters`` store.
    answers : path, optional
        A ``labels.json`` about these clusters, or about equal ones made anew; it may lack classes.
    oracle : path, optional
        An ``images`` store with true boxes or masks: a cluster is a distractor if the share of
        its cells that lie in the truth is under half of the share of all cells of its class
        (`wsltool.localize.oracle`). Or ``random``, the control: as many distractors of
        each class as in `like`, on clusters drawn with `seed`.
    oracle_from : {"boxes", "masks"}, optional
        What the oracle looks at; boxes where there are some.
    oracle_rule : {"mean", "half"}
        ``half``: a cluster is a distractor if under half of its cells lie in the truth, but never
        all clusters of a class.
    like : path, optional
        The ``labels.json`` whose words ``random`` shuffles.
    features : path, optional
        The ``features`` store, if it is not where the clusters say; the oracle looks up its
        cells in the truth, the page shows its images.
    samples : int
        Images of a class that the page shows.
    export : path, optional
        Write the page to this folder instead, as files that need no Python; what it saves is a
        file for `answers`.
    port : int
        Of the page on this machine; 0 takes a free one.
    browser : bool
        Whether a browser is opened.
    images : path, optional
        Folder of the pictures, if not where `ingest` found them.
    seed : int
        Of the images that the page shows, and of ``random``.
    output : path, optional
        A name in .json; by default INPUT's stem and ``.labels.json`` beside it. The page goes on
        with what stands there.
    overwrite : bool
        Replace labels that were made otherwise.
    report : Reporter, optional
        Who hears of progress and warnings.

    Returns
    -------
    Path
        The ``labels.json``; with `export` the folder.

    Raises
    ------
    UsageError
        An option is out of its range, or not read by the annotator.
    LineageError
        The answers are about other clusters, or the features are gone.
    DatasetError
        A file of answers is damaged.
    ProtocolError
        The truth does not belong to the features.
    StoreExistsError
        Something else stands at the output's name.
    """
    annotator = _annotator(answers, oracle, export)
    given = {
        "oracle_from": oracle_from,
        "oracle_rule": oracle_rule,
        "like": like,
        "features": features,
        "samples": samples,
        "port": port,
        "browser": browser,
        "images": images,
        "seed": seed,
        "output": output,
    }
    _check_options(annotator, given)
    with contextlib.ExitStack() as stack:
        clusters = stack.enter_context(open_input(input, "clusters", "label"))
        _check_clusters(clusters)
        desk = _Desk(clusters, given, overwrite=overwrite, report=report or Reporter())
        if export is not None:
            return desk.export(Path(export))
        if annotator == "page":
            return desk.ask()
        annotation = _annotation(desk, answers, oracle, stack)
        return desk.write(annotation)


def _annotator(answers: PathLike | None, oracle: PathLike | None, export: PathLike | None) -> str:
    """Return which of the annotators is meant."""
    told = {"--answers": answers, "--oracle": oracle, "--export": export}
    chosen = [option for option, value in told.items() if value is not None]
    if len(chosen) > 1:
        raise UsageError(
            f"{' and '.join(chosen)} exclude each other: labels have one annotator. Leave "
            f"{'one' if len(chosen) == 2 else 'two'} out."
        )
    if oracle is not None:
        return "random" if os.fspath(oracle) == _RANDOM else "oracle"
    return "answers" if answers is not None else "export" if export is not None else "page"


def _check_options(annotator: str, given: dict[str, Any]) -> None:
    for name, value in given.items():
        if value != _DEFAULTS[name] and name not in _READ[annotator]:
            readers = [_SAID[other] for other, names in _READ.items() if name in names]
            raise UsageError(
                f"{_option(name)} is not read by {_SAID[annotator]}, only by "
                f"{' and '.join(readers)}. Leave it out."
            )
    if given["oracle_from"] is not None:
        check_choice("--oracle-from", given["oracle_from"], OracleFrom)
    check_choice("--oracle-rule", given["oracle_rule"], OracleRule)
    if annotator == "random" and given["like"] is None:
        raise UsageError(
            "--oracle random needs --like LABELS: it marks as many clusters of each class as those "
            "labels do. Make them first, for instance with --oracle TRUTH."
        )
    check_range("--samples", given["samples"], 1, _MOST_SAMPLES, open_high=False, whole=True)
    check_range("--port", given["port"], 0, _LAST_PORT, open_high=False, whole=True)
    check_seed(given["seed"])
    if given["output"] is not None and Path(given["output"]).suffix != _SUFFIX:
        raise UsageError(f"-o {given['output']}: labels end in {_SUFFIX}.")


def _option(name: str) -> str:
    return _NAMES.get(name, "--" + name.replace("_", "-"))


def _check_clusters(clusters: Store) -> None:
    if not len(annotation_order(clusters)):
        names, notes = clusters.class_names(), clusters.whole("class_note").tolist()
        why = f' ("{names[0]}": {notes[0]})' if names and notes[0] else ""
        raise StoreError(
            f"{clusters.path.name}: none of its {len(clusters)} classes has clusters{why}, so "
            "there is nothing to label. Cluster more images, or with a lower --threshold of "
            "extract-features."
        )


def _annotation(
    desk: _Desk, answers: PathLike | None, oracle: PathLike | None, stack: contextlib.ExitStack
) -> Annotation:
    clusters, given, folder = desk.clusters, desk.given, desk.output.parent
    if answers is not None:
        return by_answers(clusters, folder, Path(answers))
    assert oracle is not None
    if os.fspath(oracle) == _RANDOM:
        return by_chance(clusters, folder, Path(given["like"]), given["seed"])
    truth = stack.enter_context(open_input(oracle, "images", "label --oracle"))
    features = stack.enter_context(features_behind(clusters, given["features"], "label"))
    return by_truth(
        clusters,
        folder,
        features,
        truth,
        given["oracle_from"],
        given["oracle_rule"],
        desk.report,
    )


@dataclass(frozen=True)
class _Desk:
    """Where labels of some clusters are written."""

    clusters: Store
    given: dict[str, Any]
    overwrite: bool
    report: Reporter

    @property
    def output(self) -> Path:
        told = self.given["output"]
        return output_for(self.clusters.path, "labels", _SUFFIX) if told is None else Path(told)

    def write(self, annotation: Annotation) -> Path:
        """Write the labels of an annotator; an equal file is left alone."""
        if not self._begin(annotation):
            self.report.note(f"{self.output}: finished already, left alone.")
        self.report.note(self._summary())
        return self.output

    def ask(self) -> Path:
        """Ask a person by the page, and go on where the file is."""
        from wsltool.stages import label_board

        with _alone(self.output):
            self._begin(by_person(self.clusters, self.output.parent))
            check_labels(read_labels(self.output), self.clusters)
            pictures = {name: self.given[name] for name in _READ["page"] - {"output"}}
            label_board.serve(self.clusters, self.output, report=self.report, **pictures)
            self.report.note(self._summary())
        return self.output

    def export(self, folder: Path) -> Path:
        """Write the page as files."""
        from wsltool.stages import label_board

        pictures = {name: self.given[name] for name in _READ["export"]}
        made: Path = label_board.export(
            self.clusters, folder, overwrite=self.overwrite, report=self.report, **pictures
        )
        return made

    def _begin(self, annotation: Annotation) -> bool:
        """Claim the file and write what the annotator says; False if it stands there already."""
        folder = self.output.parent
        job = Job(
            stage="label",
            kind="labels",
            output=self.output,
            params=annotation.params,
            inputs={"clusters": fingerprint_store(self.clusters, folder), **annotation.inputs},
            num_rows=len(self.clusters),
            revision=_REVISION,
            finished_meta=_finished_meta,
        )
        held, work = claim(job, overwrite=self.overwrite)
        self.report.announce(self.output)
        if work is None:
            return False
        try:
            labels = replace(annotation.annotate(), made=finished_attributes(job, held))
        except WslError:
            work.remove()  # there is nothing to go on with
            raise
        work.check_held()
        write_labels(self.output, labels, replace=False)
        work.remove()
        return True

    def _summary(self) -> str:
        labels = read_labels(self.output)
        num = sum("distractor" in one.words for one in labels.classes)
        return (
            f"{self.output}: {len(labels.classes)} of {len(annotation_order(self.clusters))} "
            f"classes labelled by {labels.annotator}, {num} with a distractor."
        )


def _finished_meta(path: Path) -> dict[str, Any]:
    """Return what a file of labels records of its making."""
    labels: Labels = read_labels(path)
    if not labels.made:
        raise DatasetError("no labels that wsltool label made.")
    return labels.made


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a file of labels against other pages; the lock ends with this process."""
    beside = path.with_name(f".{path.name}.lock")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist. Make it, or pass -o.")
    while True:
        with beside.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreUnfinishedError(
                    f"{path}: another page is open on it. Go on there, close that one, or pass -o."
                ) from error
            except OSError as error:
                raise StoreError(
                    f"{beside}: cannot be locked ({error.strerror}). Pass -o with a name in "
                    "another folder."
                ) from error
            if not _stands_at(file, beside):
                continue  # a page that ended took it away after we opened it
            try:
                yield
            finally:
                beside.unlink(missing_ok=True)
            return


def _stands_at(file: IO[str], path: Path) -> bool:
    """Return whether an open file is the one that stands at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
