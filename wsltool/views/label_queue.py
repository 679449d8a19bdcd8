"""What the label page is told: its queue of classes, and the gain that each is expected to bring.

The same page (``label_page/``) runs behind a server and from a folder. All it knows comes with
one script, ``board.js``, which sets one constant; pictures come by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wsltool.views.label_strips import PLACE_PX
from wsltool.views.overlay import heat_palette

__all__ = [
    "ASSETS",
    "PAGE_NAME",
    "SCRIPT_NAME",
    "BoardText",
    "QueueClass",
    "QueuePicture",
    "board_script",
    "expected_gain",
    "heat_name",
    "photo_name",
    "picture_names",
    "read_asset",
]

PAGE_NAME: Final = "index.html"
SCRIPT_NAME: Final = "board.js"
ASSETS: Final = {
    PAGE_NAME: "text/html",
    "page.css": "text/css",
    "answers.js": "text/javascript",
    "drawing.js": "text/javascript",
    "page.js": "text/javascript",
}
"""Files of the page and what they are."""

_GAIN_CURVE: Final = ((0.0, 0.15, 0.5, 1.0), (0.0, 0.5, 0.85, 1.0))


@dataclass(frozen=True, slots=True)
class QueuePicture:
    """One sampled image: its name, and width and height in its place of the strip."""

    image_id: str
    size_wh: tuple[int, int]


@dataclass(frozen=True, slots=True)
class QueueClass:
    """One class to be judged.

    Attributes
    ----------
    class_index
        Its number in the stores.
    class_name
        Any text; the page shows it as text.
    eigenvalue
        The second one, which orders the queue; None where there is none.
    cluster_size
        Patterns in each cluster.
    pictures
        The sampled images.
    """

    class_index: int
    class_name: str
    eigenvalue: float | None
    cluster_size: tuple[int, ...]
    pictures: tuple[QueuePicture, ...]


@dataclass(frozen=True, slots=True)
class BoardText:
    """What the page says beside its classes.

    Attributes
    ----------
    title
        The clusters store.
    mode
        ``server`` sends answers to it, ``file`` keeps them in the browser.
    labels_name
        The file of the answers.
    digest
        Of the clusters, so that answers are kept apart.
    labels_head
        What stands in the file before the classes.
    next_command
        What to run with the answers.
    """

    title: str
    mode: str
    labels_name: str
    digest: str
    labels_head: Mapping[str, Any] = field(default_factory=dict)
    next_command: str = ""


def expected_gain(num_classes: int) -> NDArray[np.float64]:
    """Return the share of the whole gain that each class of the queue is expected to bring.

    The paper's figure 6b read at the two points that its text gives: the first 15 % of the
    classes in the order of the second eigenvalue brought 50 % of the gain in localization, the
    first 50 % brought 85 % (Kolesnikov and Lampert 2016, section 4, 1000 classes of ILSVRC).
    Straight lines are drawn between; other data may differ.

    Returns
    -------
    gain_K : float64 ndarray of shape (num_classes,)
        Falling, with sum 1; empty for no class.
    """
    edge = np.linspace(0, 1, num_classes + 1) if num_classes else np.zeros(1)
    return np.diff(np.interp(edge, *_GAIN_CURVE))


def photo_name(place: int) -> str:
    """Return the name of the strip of photos of the class at `place` in the queue."""
    return f"{place:05d}-photos.jpg"


def heat_name(place: int, cluster: int) -> str:
    """Return the name of the strip of heat of one cluster, counted from 0."""
    return f"{place:05d}-heat-{cluster + 1}.png"


def picture_names(place: int, num_clusters: int) -> list[str]:
    """Return the names of all strips of a class, photos first."""
    return [photo_name(place), *(heat_name(place, cluster) for cluster in range(num_clusters))]


def board_script(
    text: BoardText, classes: Sequence[QueueClass], answers: Mapping[int, Mapping[str, Any]]
) -> str:
    """Return ``board.js``: one constant, in which no text can end the script.

    Parameters
    ----------
    text
        What stands beside the classes.
    classes
        In the order of the queue.
    answers
        By place in the queue: ``words``, ``seconds`` and ``answered``.
    """
    gain_K = expected_gain(len(classes))
    board = {
        **asdict(text),
        "place_px": PLACE_PX,
        "palette": heat_palette()[::17].tolist(),
        "classes": [
            {
                "index": one.class_index,
                "name": one.class_name,
                "eigenvalue": one.eigenvalue,
                "sizes": one.cluster_size,
                "gain": float(gain),
                "files": picture_names(place, len(one.cluster_size)),
                "pictures": [[shown.image_id, *shown.size_wh] for shown in one.pictures],
            }
            for place, (one, gain) in enumerate(zip(classes, gain_K, strict=True))
        ],
        "answers": {str(place): dict(answer) for place, answer in answers.items()},
    }
    return f"const BOARD = {_as_script(board)};\n"


def _as_script(value: object) -> str:
    """Return JSON that may stand in a script: ASCII alone, without angle brackets."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def read_asset(name: str) -> bytes:
    """Return one of `ASSETS`, as it was installed."""
    return resources.files("wsltool.views").joinpath("label_page", name).read_bytes()
