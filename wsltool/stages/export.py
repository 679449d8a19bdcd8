"""Stage ``export``: a store in the forms that other people's tools read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from wsltool.errors import StoreKindError, UsageError
from wsltool.stages.export_boxes import (
    categories,
    write_coco_results,
    write_coco_truth,
    write_comp_files,
    write_csv,
    write_voc_xml,
)
from wsltool.stages.export_maps import write_class_scores, write_maps, write_masks
from wsltool.stages.export_places import Draft, already_there, new_file, new_folder
from wsltool.stages.export_rows import num_ranks_lost
from wsltool.stages.options import PathLike, check_choice
from wsltool.stages.report import Reporter
from wsltool.stages.run import open_input
from wsltool.stores.lineage import find_ancestor, fingerprint_store
from wsltool.stores.open import open_store
from wsltool.stores.store import Store

__all__ = ["export"]

Form = Literal["coco", "coco-truth", "voc-xml", "voc-comp", "voc-cls", "csv", "npy", "png"]


@dataclass(frozen=True)
class _FormRule:
    """What a form is made of, and how its output is named."""

    kinds: tuple[str, ...]
    ending: str
    is_folder: bool


_RULES = {
    "coco": _FormRule(("boxes",), "coco.json", is_folder=False),
    "coco-truth": _FormRule(("images",), "coco.json", is_folder=False),
    "voc-xml": _FormRule(("images", "boxes"), "voc-xml", is_folder=True),
    "voc-comp": _FormRule(("boxes",), "voc-comp", is_folder=True),
    "voc-cls": _FormRule(("maps",), "voc-cls", is_folder=True),
    "csv": _FormRule(("images", "boxes"), "csv", is_folder=False),
    "npy": _FormRule(("maps",), "npy", is_folder=True),
    "png": _FormRule(("masks",), "png", is_folder=True),
}


def export(
    input: PathLike,
    *,
    form: Form,
    images: PathLike | None = None,
    split: str = "test",
    output: PathLike | None = None,
    overwrite: bool = False,
    report: Reporter | None = None,
) -> Path:
    """Write a store in a form that other tools read; `ingest` reads each back without loss.

    Parameters
    ----------
    input : path
        A ``boxes``, ``images``, ``maps`` or ``masks`` store.
    form : str
        From boxes: ``coco`` (results JSON), ``voc-comp`` (detections for VOC's evaluation
        server); from boxes or from images with true boxes: ``voc-xml`` (annotations), ``csv``;
        from images: ``coco-truth`` (instances JSON); from maps: ``npy`` (a file an image),
        ``voc-cls`` (class scores for VOC's evaluation server); from masks: ``png``.
    images : path, optional
        The ``images`` store, if not where it was when `input` was made: it knows the class
        ids and the pictures' names.
    split : str
        The image set in the names of ``voc-comp`` and ``voc-cls``.
    output : path, optional
        File or folder, by default INPUT's stem and the form beside it. Where a file of equal
        content, or an equal export, stands already, nothing is written.
    overwrite : bool
        Replace another file, or a folder that was exported and holds nothing else.
    report : Reporter, optional
        Who hears of warnings.

    Returns
    -------
    Path
        The file or folder.

    Raises
    ------
    UsageError
        An option is none of the choices.
    StoreKindError
        The form is made from another kind of store, or the images have no boxes.
    StoreExistsError
        Something else stands there.
    LineageError
        The images are not where they were.
    DatasetError
        The form cannot hold a name, such as an id with blanks in VOC's results.
    """
    report = report or Reporter()
    check_choice("--form", form, Form)
    if not re.fullmatch(r"[A-Za-z0-9.-]+", split):
        raise UsageError(f'--split must be letters, digits, dots and dashes, got "{split}".')
    rule = _RULES[form]
    with ExitStack() as stack:
        store = stack.enter_context(open_store(Path(input)))
        _check_kind(store, form)
        true = stack.enter_context(_images_of(store, images))
        default = store.path.with_name(f"{store.path.stem}.{rule.ending}")
        path = default if output is None else Path(output)
        _warn(store, form, report)
        if rule.is_folder:
            _write_folder(store, true, path, form, split, report, overwrite=overwrite)
        else:
            _write_file(store, true, path, form, report, overwrite=overwrite)
        report.announce(path)
        return path


def _check_kind(store: Store, form: str) -> None:
    kinds = _RULES[form].kinds
    if store.kind not in kinds:
        able = [name for name in get_args(Form) if store.kind in _RULES[name].kinds]
        raise StoreKindError(
            f'{store.path.name}: kind is "{store.kind}", but --form {form} is made of '
            f"{' or '.join(kinds)}. From {store.kind}: {', '.join(able) or 'nothing'}."
        )
    if "boxes" not in kinds and "images" not in kinds:
        return
    if "box" not in store:
        raise StoreKindError(
            f"{store.path.name}: has no true boxes, but --form {form} writes boxes. Ingest the "
            "images with them."
        )


def _images_of(store: Store, images: PathLike | None) -> Store:
    """Open the images behind a store; of masks nothing is asked, so they do."""
    if store.kind in ("images", "masks"):
        return open_store(store.path)
    if images is None:
        return find_ancestor(store, "images", "--images")
    found = open_input(images, "images", "export --images")
    if store.class_names() != found.class_names():
        found.close()
        raise UsageError(
            f"{found.path.name}: has other classes than {store.path.name}. Give the images that "
            "it was made from with --images."
        )
    return found


def _warn(store: Store, form: str, report: Reporter) -> None:
    """Tell of what the form leaves behind."""
    if "image_status" in store:
        num = sum(int((status != 0).sum()) for status in store.blocks("image_status"))
        if num:
            report.warn(f"{store.path.name}: {num} images were skipped; they are not written.")
    if store.kind == "boxes" and store.attributes.get("classes") == "present":
        report.warn(
            f"{store.path.name}: holds the classes present, so the truth chose them; files cannot "
            "say so, and whoever scores them by a protocol that ranks classes is misled."
        )
    num = num_ranks_lost(store) if store.kind == "boxes" else 0
    if num:
        report.note(
            f"{store.path.name}: {num} ranked classes have no box or stand twice; files of boxes "
            "do not tell their rank, which ilsvrc-top5 reads."
        )
    if form == "npy" and "suppressed" in store:
        report.warn(
            f"{store.path.name}: which cells are suppressed is left behind; they keep the floor."
        )


def _write_file(
    store: Store, images: Store, path: Path, form: str, report: Reporter, *, overwrite: bool
) -> None:
    writers: dict[str, Callable[[Path], None]] = {
        "coco": lambda draft: write_coco_results(store, images, draft),
        "coco-truth": lambda draft: write_coco_truth(images, draft),
        "csv": lambda draft: write_csv(store, images, draft),
    }
    with ExitStack() as stack:
        draft = stack.enter_context(new_file(path, overwrite=overwrite))
        if form == "coco":
            listed, are_own = categories(images)
            if not are_own:
                beside = path.with_name(f"{path.stem}.categories.json")
                about = stack.enter_context(new_file(beside, overwrite=overwrite))
                text = json.dumps({"categories": listed}, ensure_ascii=False, indent=1)
                about.write_text(text + "\n", "utf-8")
                report.note(f"{beside}: says which class each category_id is.")
        writers[form](draft)


def _write_folder(
    store: Store,
    images: Store,
    path: Path,
    form: str,
    split: str,
    report: Reporter,
    *,
    overwrite: bool,
) -> None:
    writers: dict[str, Callable[[Draft], None]] = {
        "voc-xml": lambda draft: write_voc_xml(store, images, draft),
        "voc-comp": lambda draft: write_comp_files(store, images, draft, split),
        "voc-cls": lambda draft: write_class_scores(store, images, draft, split),
        "npy": lambda draft: write_maps(store, images, draft),
        "png": lambda draft: write_masks(store, draft),
    }
    identity = _identity(store, form, split)
    if already_there(path, identity):
        report.note(f"{path}: exported already, left alone.")
        return
    with new_folder(path, identity, overwrite=overwrite) as draft:
        writers[form](draft)


def _identity(store: Store, form: str, split: str) -> dict[str, Any]:
    """Return what tells one export from another."""
    made_from = fingerprint_store(store, store.path.parent)
    named = {"split": split} if form in ("voc-comp", "voc-cls") else {}
    return {"form": form, "store": made_from.get("digest") or made_from["id"], **named}
