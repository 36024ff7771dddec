"""Input images of a model: uploads, or images that another model generates.

Sources of images are created on the event loop, with all checks. The images are made later, on a worker, for a whole
batch. An image is a pure function of its source and its index.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from app.checkpoints.capabilities import Symbol
from app.errors import CapabilityMissing, InvalidRequest
from app.images.encode import from_uint8, to_uint8
from app.images.shapes import WarningCode
from app.inference.engine import Engine
from app.inference.model import Model
from app.inference.runtime import Labels, Rows
from app.inference.sampling import Seeded, draw, generate, split


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Uploads `(n, 1, H, W)` in [0, 1], their warnings, and their labels `(n,)` if the model takes labels."""

    images: Rows
    warnings: Sequence[list[WarningCode]]
    labels: Labels | None = None

    first = 0  # index in the answer
    models: ClassVar[tuple[Model, ...]] = ()  # that generate the images

    @property
    def origin(self) -> dict[str, Any]:
        """Seed, prior and generator for the answer."""
        return {"seed": None, "prior": None, "generator": None}

    def warnings_of(self, offset: int, count: int) -> Sequence[list[WarningCode]]:
        """The warnings of `count` images from `offset` on."""
        return self.warnings[offset : offset + count]


@dataclass(frozen=True, slots=True)
class Generated:
    """Images of a seed from index `first` on, rounded to 8 bits: the model sees what their PNGs show."""

    generator: Model
    source: Seeded
    first: int

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that generate the images."""
        return (self.generator,)

    @property
    def origin(self) -> dict[str, Any]:
        """Seed, prior and generator for the answer."""
        return {"seed": self.source.seed, "prior": self.source.prior, "generator": self.generator.name}

    def warnings_of(self, _offset: int, count: int) -> Sequence[list[WarningCode]]:
        """No warnings, for each of `count` images."""
        return [[]] * count


Images = Uploaded | Generated


def take(slices: Sequence[tuple[Images, int, int]]) -> list[tuple[Rows, Labels | None]]:
    """Images `(count, 1, H, W)` in [0, 1] and labels `(count,)` of slices: a source, the first image and their number.

    Each generator makes one pass.
    """
    taken: dict[int, tuple[Rows, Labels | None]] = {}
    generators: dict[str, Model] = {}
    for i, (source, first, count) in enumerate(slices):
        if isinstance(source, Generated):
            generators[source.generator.name] = source.generator
        else:
            rows = slice(first, first + count)
            taken[i] = source.images[rows], None if source.labels is None else source.labels[rows]
    for generator in generators.values():
        own = {
            i: (source.source, source.first + first, count)
            for i, (source, first, count) in enumerate(slices)
            if isinstance(source, Generated) and source.generator is generator
        }
        drawn = draw(generator, [*own.values()])
        images = from_uint8(to_uint8(generate(generator, drawn)))
        parts = split(images, [count for _, _, count in own.values()])
        taken |= {i: (part, labels) for i, part, (_, labels) in zip(own, parts, drawn, strict=True)}
    return [taken[i] for i in range(len(slices))]


def find_generator(
    engine: Engine, name: str | None, model: Model, prepare: Callable[[Model], Seeded]
) -> tuple[Model, Seeded]:
    """The generator: the named one, else the model itself if it can generate the images, else the first that can.

    prepare: the source of the images of a generator; raises CapabilityMissing or InvalidRequest, as `Engine.select`.
    """
    if name is None:
        with suppress(InvalidRequest):
            return model, prepare(model)
    return engine.select(name, prepare, "generator")


def check_generator(generator: Model, model: Model, taken: Symbol) -> None:
    """Raises CapabilityMissing unless the generator makes images of the shape that the model takes.

    taken: IMAGE or INPUT_IMAGE.
    """
    generator.require("generate")
    made, needed = generator.manifest.shape(Symbol.IMAGE), model.manifest.shape(taken)
    if made != needed:
        raise CapabilityMissing(
            f"model {model.name} takes images of {size_text(needed)} pixels, and those of model {generator.name} have "
            f"{size_text(made)}"
        )


def size_text(shape: tuple[int, ...]) -> str:
    """Height and width of images `(1, H, W)` for a message: 28x28."""
    return "x".join(map(str, shape[1:]))
