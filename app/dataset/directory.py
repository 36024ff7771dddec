"""The folder of a data set: finds its complete shards, and writes shards and manifest.

Until all shards are complete, a hidden file has the plan in its first line and the record of a finished shard in each
further line. It is not trusted: a shard counts as complete only if its bytes have the digest of its record, so that a
process, a machine or a disk may fail at any point.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from app.checkpoints.files import is_partial, write_atomically
from app.dataset.dataset_card import card
from app.dataset.formats import FORMATS, Place
from app.dataset.plan import RESUME_HINT, DatasetError, Plan, ShardRecord
from app.dataset.shards import Shard

MANIFEST, CARD = "manifest.json", "README.md"
PROGRESS = ".progress.jsonl"
SCHEMA_VERSION = 1
BLOCK = 2**20


class _Found(NamedTuple):
    """The contents of the progress file or the manifest: fields of a plan, and records of shards."""

    plan: dict[str, Any]
    records: list[ShardRecord]


class DatasetDirectory:
    """The folder of a data set, locked so that no other process writes it."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path, self._plan = path, plan
        self.records: dict[int, ShardRecord] = {}  # of the complete shards

    @classmethod
    @contextmanager
    def opened(cls, path: Path, plan: Plan) -> Iterator["DatasetDirectory"]:
        """The folder, created if missing, with the records of the complete shards.

        Raises DatasetError if it holds anything but this data set or is in use, and for errors of the file system.
        """
        with _file_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DatasetError(f"{path}: another process is writing this data set") from None
            directory = cls(path, plan)
            directory._read()
            yield directory
        finally:
            os.close(lock)

    @property
    def missing(self) -> list[int]:
        """The shards that are missing or incomplete."""
        return [shard for shard in range(self._plan.shards) if shard not in self.records]

    def add(self, shard: Shard) -> None:
        """Write a shard, then its record. Raises DatasetError for errors of the file system."""
        for place, content in zip(self._places(shard.record.shard), shard.contents, strict=True):
            self._write(place, content)
        with _file_errors(self._path / PROGRESS), (self._path / PROGRESS).open("a") as progress:
            progress.write(f"{shard.record.model_dump_json()}\n")
        self.records[shard.record.shard] = shard.record

    def finish(self) -> None:
        """Write manifest and card of a data set with all shards. Raises DatasetError for errors of the file system."""
        records = [self.records[shard] for shard in range(self._plan.shards)]
        manifest = {"schema_version": SCHEMA_VERSION} | self._plan.model_dump(mode="json")
        manifest["shards"] = [record.model_dump(mode="json", exclude={"shard"}) for record in records]
        files = {CARD: card(self._plan, records), MANIFEST: json.dumps(manifest, indent=1) + "\n"}
        for name, text in files.items():
            with _file_errors(self._path / name):
                is_there = (self._path / name).is_file() and (self._path / name).read_bytes() == text.encode()
            if not is_there:  # a data set on a read-only disk can be verified
                self._write(Place(name), text.encode())
        with _file_errors(self._path / PROGRESS):
            (self._path / PROGRESS).unlink(missing_ok=True)

    def _places(self, shard: int) -> list[Place]:
        return FORMATS[self._plan.request.format].places(self._plan, shard)

    def _read(self) -> None:
        found = self._found()
        if found is None:
            with _file_errors(self._path):
                # A command that was killed at its start may leave a part of its first file.
                foreign = next((path for path in self._path.iterdir() if not is_partial(path)), None)
            if foreign is not None:
                raise DatasetError(f"{self._path}: is not empty and holds no data set of this command")
        elif difference := _difference(found.plan, self._plan.model_dump(mode="json")):
            raise DatasetError(f"{self._path}: holds another data set, {difference}; choose another --out or delete it")
        elif (foreign := self._foreign()) is not None:
            raise DatasetError(f"{foreign}: is not of this data set; remove it, or choose another --out")
        records = found.records if found else []
        self.records = {each.shard: each for each in records if self._is_whole(each)}
        lines = [each.model_dump_json() for each in (self._plan, *self.records.values())]
        if self.missing or not (self._path / MANIFEST).exists():
            self._write(Place(PROGRESS), "".join(f"{line}\n" for line in lines).encode())

    def _found(self) -> _Found | None:
        """Raises DatasetError if a file of this name is not of this command."""
        path = next((path for name in (PROGRESS, MANIFEST) if (path := self._path / name).exists()), None)
        if path is None:
            return None
        with _file_errors(path):
            text = path.read_bytes()
        try:
            if path.name == MANIFEST:
                plan = json.loads(text)
                records = [ShardRecord(shard=i, **each) for i, each in enumerate(plan["shards"])]
            else:
                first, *lines = text.splitlines()
                plan, records = json.loads(first), list(_records(lines))
            return _Found({name: plan[name] for name in self._plan.model_dump()}, records)
        except (ValueError, TypeError, KeyError):
            raise DatasetError(f"{path}: is not of a data set of this command") from None

    def _foreign(self) -> Path | None:
        """A file or folder that does not belong to this data set, if there is one. Hidden ones are ignored."""
        files = {MANIFEST, CARD}
        for shard in range(self._plan.shards):
            files.update(place.path for place in self._places(shard))
        expected = files | {str(folder) for file in files for folder in Path(file).parents}
        with _file_errors(self._path):
            for folder, folders, names in os.walk(self._path):
                folders[:] = [name for name in folders if not name.startswith(".")]
                for path in (Path(folder, name) for name in folders + names if not name.startswith(".")):
                    if str(path.relative_to(self._path)) not in expected:
                        return path
        return None

    def _is_whole(self, record: ShardRecord) -> bool:
        """Whether the bytes of a shard have the digest of its record."""
        if record.shard not in range(self._plan.shards):
            return False
        digest = hashlib.sha256()
        for place in self._places(record.shard):
            path = self._path / place.path
            if not path.is_file():
                return False
            with _file_errors(path), path.open("rb") as file:
                file.seek(place.offset)
                left = os.fstat(file.fileno()).st_size if place.size is None else place.size
                while left and (block := file.read(min(left, BLOCK))):
                    digest.update(block)
                    left -= len(block)
                if place.is_end and file.read(1):
                    return False
        return digest.hexdigest() == record.sha256

    def _write(self, place: Place, content: bytes) -> None:
        """Write a part of a file, or a whole file at once."""
        path = self._path / place.path
        with _file_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if place.size is not None:
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb") as file:
                    file.seek(place.offset)
                    file.write(content)
                    if place.is_end:
                        file.truncate()
                return
            if place.path in {PROGRESS, MANIFEST, CARD}:
                write_atomically(path, content)  # must survive a power failure: these files have no digest
                return
            temporary = path.with_name(f".{path.name}.tmp")
            try:
                temporary.write_bytes(content)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)


def _records(lines: list[bytes]) -> Iterator[ShardRecord]:
    """The records of the lines that were written completely."""
    for line in lines:
        try:
            yield ShardRecord.model_validate_json(line)
        except ValidationError:
            continue


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """The first difference of two plans in words, None if they are equal."""
    for name, value in wanted.items():
        there = found.get(name)
        if there != value:
            if isinstance(value, dict) and isinstance(there, dict):
                return _difference(there, value)
            return f"{name} {json.dumps(there)} instead of {json.dumps(value)}"
    return None


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system into DatasetError, with this path."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}; {RESUME_HINT}") from error
