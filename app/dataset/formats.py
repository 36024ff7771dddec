"""The file formats of a data set: the contents of a shard, and their places in files.

Images are 8-bit grey, `(n, H, W)`; PNGs are those of the service.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from app.dataset.plan import DatasetError, Plan
from app.images import encode
from app.images.encode import Pixels
from app.images.stream_archive import MAX_IDX_CLASSES, folder_name, idx_header
from app.inference.runtime import Labels

# Where torchvision.datasets.MNIST looks for its four files.
IDX_FOLDER = "MNIST/raw"
UNLABELLED = "unlabelled"


class Place(NamedTuple):
    """A whole file of the data set, or `size` bytes of it from `offset` on, which may be its end."""

    path: str
    offset: int = 0
    size: int | None = None
    is_end: bool = False


@dataclass(frozen=True)
class Format:
    """A file format of a data set.

    places: of the contents of a shard. contents: of a shard with these images and labels, in the same order.
    files: a pattern of the image files, for the card; None if other tools read only the whole folder.
    library: the package that writes the files, if they need one.
    """

    places: Callable[[Plan, int], list[Place]]
    contents: Callable[[Plan, int, Pixels, Labels | None], Iterator[bytes]]
    files: str | None = None
    library: str | None = None


def image_name(plan: Plan, index: int) -> str:
    """The index, padded with zeros so that names sort in the order of images."""
    return f"{index:0{len(str(plan.request.count - 1))}d}"


def _parquet_places(plan: Plan, shard: int) -> list[Place]:
    return [Place(f"data/train-{shard:05d}-of-{plan.shards:05d}.parquet")]


def _parquet(plan: Plan, shard: int, pixels: Pixels, labels: Labels | None) -> Iterator[bytes]:
    """Columns `image`, `label` and `index`, with the features that the library `datasets` reads from the schema."""
    import pyarrow as pa  # noqa: PLC0415 -- of an extra
    from pyarrow import parquet  # noqa: PLC0415

    pngs = [encode.png(image) for image in pixels]
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {"image": pa.array([{"bytes": png, "path": None} for png in pngs], image)}
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if labels is not None:
        columns["label"] = pa.array(labels)
        features["label"] = {"names": plan.classes, "_type": "ClassLabel"}
    columns["index"] = pa.array(np.array(plan.span(shard)))
    features["index"] = {"dtype": "int64", "_type": "Value"}
    schema = {"huggingface": json.dumps({"info": {"features": features}})}
    file = io.BytesIO()
    # Uncompressed, because PNGs are compressed already.
    parquet.write_table(pa.table(columns).replace_schema_metadata(schema), file, compression="none")
    yield file.getvalue()


def _webdataset_places(_: Plan, shard: int) -> list[Place]:
    return [Place(f"train-{shard:06d}.tar")]


def _webdataset(plan: Plan, shard: int, pixels: Pixels, labels: Labels | None) -> Iterator[bytes]:
    """A tar archive with `INDEX.png` and `INDEX.cls`, the label in decimal."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:

        def add(name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(name)  # without time and user, so that the bytes are the same everywhere
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))

        for i, index in enumerate(plan.span(shard)):
            name = image_name(plan, index)
            add(f"{name}.png", encode.png(pixels[i]))
            if labels is not None:
                add(f"{name}.cls", str(labels[i]).encode())
    yield file.getvalue()


def _npz_places(_: Plan, shard: int) -> list[Place]:
    return [Place(f"train-{shard:05d}.npz")]


def _npz(plan: Plan, shard: int, pixels: Pixels, labels: Labels | None) -> Iterator[bytes]:
    arrays = {} if labels is None else {"labels": labels}
    yield encode.npz(images=pixels, index=np.array(plan.span(shard)), **arrays)


def _folder_places(plan: Plan, shard: int) -> list[Place]:
    """A PNG file an image in a folder a class, as torchvision.datasets.ImageFolder reads it."""
    labels, span = plan.labels(shard), plan.span(shard)
    classes = [folder_name(name) for name in plan.classes]
    folders = [UNLABELLED] * len(span) if labels is None else [classes[label] for label in labels.tolist()]
    return [Place(f"{folder}/{image_name(plan, i)}.png") for folder, i in zip(folders, span, strict=True)]


def _folder(_: Plan, __: int, pixels: Pixels, ___: Labels | None) -> Iterator[bytes]:
    return (encode.png(image) for image in pixels)


def _idx_places(plan: Plan, shard: int) -> list[Place]:
    """Parts of `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`; the first shard has the headers too.

    torchvision also requires the files of the test images, so the first shard has two without images.
    """
    span = plan.span(shard)
    files = [("images-idx3-ubyte", plan.shape[0] * plan.shape[1], 16)]
    if plan.labelled:
        files.append(("labels-idx1-ubyte", 1, 8))
    places = []
    for name, size, header in files:
        begin, end = (span.start and header + span.start * size), header + span.stop * size
        is_end = span.stop == plan.request.count
        places.append(Place(f"{IDX_FOLDER}/train-{name}", begin, end - begin, is_end))
    return places + [Place(f"{IDX_FOLDER}/t10k-{name}") for name, _, _ in files if shard == 0]


def _idx(plan: Plan, shard: int, pixels: Pixels, labels: Labels | None) -> Iterator[bytes]:
    arrays = [pixels] if labels is None else [pixels, labels.astype(np.uint8)]
    for array in arrays:
        header = idx_header(plan.request.count, *array.shape[1:]) if shard == 0 else b""
        yield header + array.tobytes()
    if shard == 0:
        yield from (idx_header(0, *array.shape[1:]) for array in arrays)


FORMATS = {
    "parquet": Format(_parquet_places, _parquet, "data/train-*.parquet", "pyarrow"),
    "webdataset": Format(_webdataset_places, _webdataset, "train-*.tar"),
    "idx": Format(_idx_places, _idx),
    "npz": Format(_npz_places, _npz),
    "folder": Format(_folder_places, _folder, "*/*.png"),
}


def check_format(name: str, classes: int) -> dict[str, str]:
    """The library that writes the files, with its version. Raises DatasetError if it is missing or labels do not fit.

    classes: their number, 0 for images without labels.
    """
    if name == "idx" and classes > MAX_IDX_CLASSES:
        raise DatasetError(f"format idx has labels of one byte, and the model has {classes} classes")
    library = FORMATS[name].library
    if library is None:
        return {}
    try:
        __import__(library)
        return {library: version(library)}
    except ImportError:
        raise DatasetError(
            f"format {name} needs the package {library} of the extra `dataset`: pip install '.[dataset]'"
        ) from None
