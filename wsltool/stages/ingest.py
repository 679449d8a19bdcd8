"""Stage ``ingest``: other people's files become an images store."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Unpack

from wsltool.datasets.coco import open_coco
from wsltool.datasets.cub import open_cub
from wsltool.datasets.folder import open_folder
from wsltool.datasets.ilsvrc import open_ilsvrc
from wsltool.datasets.voc import open_voc
from wsltool.datasets.wsol_metadata import open_wsol
from wsltool.errors import UsageError
from wsltool.stages.ingest_store import ingest_dataset
from wsltool.stages.options import PathLike, RunOptions, check_choice

__all__ = [
    "ingest_coco",
    "ingest_cub",
    "ingest_folder",
    "ingest_ilsvrc",
    "ingest_openimages",
    "ingest_voc",
    "ingest_wsol",
]

_IlsvrcSplit = Literal["train", "val"]
_CubSplit = Literal["train", "test"]


def ingest_voc(
    folder: PathLike,
    *,
    split: str = "trainval",
    classes: PathLike | None = None,
    embed: bool = False,
    **options: Unpack[RunOptions],
) -> Path:
    """Read a data set in the layout of PASCAL VOC 2007 or 2012.

    Parameters
    ----------
    folder : path
        The year's folder, with ``JPEGImages``, ``Annotations`` and ``ImageSets``.
    split : str
        Name of an image set, looked up in ``ImageSets/Main`` first, or ``Segmentation/val``.
    classes : path, optional
        Class list of a data set with other classes than VOC's twenty.
    embed : bool
        Pack the encoded pictures into the store.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The images store (default ``FOLDER.SPLIT.zarr`` beside the folder).

    Raises
    ------
    DatasetError
        The layout is not VOC's, or the image set is not there.
    BadImageError
        A picture or its annotation is unusable and ``on_bad`` is ``"stop"``.
    """
    place = _folder(folder)
    data = open_voc(place, split, _path(classes))
    params = {"split": split, "embed": embed}
    return ingest_dataset("voc", data, _beside(place, split.replace("/", "_")), params, options)


def ingest_folder(
    folder: PathLike,
    *,
    labels: PathLike | None = None,
    boxes: PathLike | None = None,
    classes: PathLike | None = None,
    embed: bool = False,
    **options: Unpack[RunOptions],
) -> Path:
    """Read a folder of pictures: a folder a class, or a CSV of image-level labels.

    Parameters
    ----------
    folder : path
        Where the pictures lie.
    labels : path, optional
        CSV ``image,label`` (a pair a line) or ``image,CLASS,CLASS,…`` with 1, 0, 255.
    boxes : path, optional
        CSV ``image,x0,y0,x1,y1[,label,difficult,truncated]``, half-open pixels.
    classes : path, optional
        Class list: a class a line, ``name`` or ``index id name``.
    embed : bool
        Pack the encoded pictures into the store.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The images store (default ``FOLDER.images.zarr`` beside the folder).

    Raises
    ------
    DatasetError
        A CSV or class list is malformed, or names what is not there.
    BadImageError
        A picture or its boxes are unusable and ``on_bad`` is ``"stop"``.
    """
    place = _folder(folder)
    data = open_folder(place, labels=_path(labels), boxes=_path(boxes), classes=_path(classes))
    params = {"embed": embed}
    return ingest_dataset("folder", data, _beside(place, "images"), params, options)


def ingest_coco(
    annotations: PathLike,
    *,
    images: PathLike | None = None,
    no_images: bool = False,
    no_masks: bool = False,
    embed: bool = False,
    **options: Unpack[RunOptions],
) -> Path:
    """Read an instances JSON of COCO, or of any data set in that form.

    Parameters
    ----------
    annotations : path
        The JSON, such as ``annotations/instances_val2017.json``.
    images : path, optional
        Folder of the pictures; looked for around the JSON where left out.
    no_images : bool
        Read the annotations alone, with the sizes that they tell.
    no_masks : bool
        Leave the segmentations out; else they need pycocotools.
    embed : bool
        Pack the encoded pictures into the store.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The images store (default: the JSON's name with ``.zarr``, beside it).

    Raises
    ------
    DatasetError
        The JSON is broken or of another form, or the pictures are nowhere.
    ExtraMissingError
        There are segmentations, but pycocotools is not installed.
    BadImageError
        A picture or its annotations are unusable and ``on_bad`` is ``"stop"``.
    """
    place = Path(annotations)
    if not place.is_file():
        raise UsageError(f"{place}: there is no such file. Give the JSON of the annotations.")
    _check_pictures(images, no_images=no_images, embed=embed)
    data = open_coco(place, _folder_or_none(images), pictures=not no_images, masks=not no_masks)
    params = {"no_images": no_images, "no_masks": no_masks, "embed": embed}
    return ingest_dataset("coco", data, place.resolve().with_suffix(".zarr"), params, options)


def ingest_ilsvrc(
    folder: PathLike,
    *,
    split: str = "val",
    classes: PathLike | None = None,
    labels: PathLike | None = None,
    blacklist: PathLike | None = None,
    embed: bool = False,
    **options: Unpack[RunOptions],
) -> Path:
    """Read ILSVRC's classification and localization data (CLS-LOC).

    Parameters
    ----------
    folder : path
        ``ILSVRC`` or the folder that holds it, or the folder with ``ILSVRC2012_img_val``.
    split : str
        ``val`` or ``train``.
    classes : path, optional
        Class list, such as ``LOC_synset_mapping.txt``; looked for where left out.
    labels : path, optional
        The devkit's ground truth of the validation images; without it the boxes tell.
    blacklist : path, optional
        Numbers of the validation images that localization leaves out.
    embed : bool
        Pack the encoded pictures into the store.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The images store (default ``FOLDER.SPLIT.zarr`` beside the folder).

    Raises
    ------
    DatasetError
        The layout is not ILSVRC's, or a list is missing or malformed.
    BadImageError
        A picture or its annotation is unusable and ``on_bad`` is ``"stop"``.
    """
    check_choice("--split", split, _IlsvrcSplit)
    if split == "train" and (labels is not None or blacklist is not None):
        raise UsageError("--labels and --blacklist belong to --split val.")
    place = _folder(folder)
    data = open_ilsvrc(
        place,
        split,  # type: ignore[arg-type]
        classes=_path(classes),
        labels=_path(labels),
        blacklist=_path(blacklist),
    )
    params = {"split": split, "embed": embed}
    return ingest_dataset("ilsvrc", data, _beside(place, split), params, options)


def ingest_cub(
    folder: PathLike,
    *,
    split: str = "test",
    embed: bool = False,
    **options: Unpack[RunOptions],
) -> Path:
    """Read Caltech-UCSD Birds 200-2011.

    Parameters
    ----------
    folder : path
        ``CUB_200_2011``.
    split : str
        ``test`` or ``train``.
    embed : bool
        Pack the encoded pictures into the store.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The images store (default ``FOLDER.SPLIT.zarr`` beside the folder).

    Raises
    ------
    DatasetError
        A list is missing or malformed.
    BadImageError
        A picture, its box or its mask is unusable and ``on_bad`` is ``"stop"``.
    """
    check_choice("--split", split, _CubSplit)
    place = _folder(folder)
    data = open_cub(place, split)  # type: ignore[arg-type]
    params = {"split": split, "embed": embed}
    return ingest_dataset("cub", data, _beside(place, split), params, options)


def ingest_wsol(
    folder: PathLike,
    *,
    images: PathLike | None = None,
    no_images: bool = False,
    masks: PathLike | None = None,
    classes: PathLike | None = None,
    embed: bool = False,
    **options: Unpack[RunOptions],
) -> Path:
    """Read metadata lists of wsolevaluation: CUB, ILSVRC, OpenImages or another data set.

    Parameters
    ----------
    folder : path
        The folder with ``image_ids.txt``, ``class_labels.txt``, ``image_sizes.txt`` and
        ``localization.txt``, such as ``metadata/CUB/test``.
    images : path, optional
        Folder of the pictures.
    no_images : bool
        Read the metadata alone; either this or `images` is needed.
    masks : path, optional
        Folder of the masks, where ``localization.txt`` names masks.
    classes : path, optional
        Class list, a line for each class number; else the classes are called 0, 1, 2 ….
    embed : bool
        Pack the encoded pictures into the store.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The images store (default ``FOLDER.images.zarr`` beside the folder).

    Raises
    ------
    DatasetError
        A list is missing or malformed.
    BadImageError
        A picture, box or mask is unusable, or no size is known, and ``on_bad`` is ``"stop"``.
    """
    _check_pictures(images, no_images=no_images, embed=embed)
    if images is None and not no_images:
        raise UsageError(
            "--images is missing: the folder of the pictures. Pass --no-images to read the "
            "metadata alone."
        )
    place = _folder(folder)
    data = open_wsol(place, images=_path(images), masks=_path(masks), classes=_path(classes))
    params = {"no_images": no_images, "embed": embed}
    return ingest_dataset("wsol", data, _beside(place, "images"), params, options)


def ingest_openimages(
    folder: PathLike,
    *,
    masks: PathLike | None = None,
    images: PathLike | None = None,
    no_images: bool = False,
    classes: PathLike | None = None,
    embed: bool = False,
    **options: Unpack[RunOptions],
) -> Path:
    """Read OpenImages as wsolevaluation has it: metadata lists and the masks that they name.

    The same as `ingest_wsol` with `masks`, and the same store.

    Parameters
    ----------
    folder : path
        The folder with the lists, such as ``metadata/OpenImages/test``.
    masks : path
        Folder of the masks; it must be given.
    images, no_images, classes, embed, **options
        As in `ingest_wsol`.

    Returns
    -------
    Path
        The images store (default ``FOLDER.images.zarr`` beside the folder).

    Raises
    ------
    DatasetError, BadImageError
        As `ingest_wsol`.
    """
    if masks is None:
        raise UsageError("--masks is missing: the folder of the masks.")
    return ingest_wsol(
        folder,
        images=images,
        no_images=no_images,
        masks=masks,
        classes=classes,
        embed=embed,
        **options,
    )


def _path(given: PathLike | None) -> Path | None:
    return None if given is None else Path(given)


def _folder(given: PathLike) -> Path:
    place = Path(given)
    if not place.is_dir():
        raise UsageError(f"{place}: there is no such folder. Give the data set's folder.")
    return place


def _folder_or_none(given: PathLike | None) -> Path | None:
    return None if given is None else _folder(given)


def _beside(folder: Path, word: str) -> Path:
    place = folder.resolve()
    return place.with_name(f"{place.name}.{word}.zarr")


def _check_pictures(images: PathLike | None, *, no_images: bool, embed: bool) -> None:
    """Refuse options of pictures that contradict each other."""
    if no_images and (images is not None or embed):
        option = "--embed" if embed else "--images"
        raise UsageError(f"--no-images and {option} contradict each other. Pass one of them.")
