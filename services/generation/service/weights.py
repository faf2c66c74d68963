"""Weights on disk: verified by content hash, safetensors only, whole, and of the shape the engine was started with.

The engine itself accepts a checkpoint with missing tensors with no more than a warning and goes on with the old ones,
so names and shapes are compared here before anything is loaded. Blocking; callers use a thread.
"""

import json
import shutil
import threading
from collections.abc import Collection
from pathlib import Path, PurePosixPath

import fsspec

from shared.artifacts import HASH_FILE, fetch_directory
from shared.contracts.policies import PolicyKind
from shared.errors import ConflictError, HeadwaterError

UNSAFE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".pyc", ".py", ".so", ".joblib"})
ADAPTER_CONFIG, MODEL_CONFIG = "adapter_config.json", "config.json"
_TIED_HEAD = "lm_head.weight"
_MAX_HEADER_BYTES = 100_000_000

Shapes = dict[str, tuple[int, ...]]
Fingerprint = tuple[tuple[str, int, int], ...]


class WeightsStore:
    """Finds verified weights by (uri, content hash). A directory is hashed again only when a file changed its size or time.

    `artifacts_url`: where weights are published; no others are read, but for those of the engine's own model.
    `engine_model`: the directory that the engine was started with; None when it is not on this machine.
    """

    def __init__(self, cache: Path, artifacts_url: str, engine_model: Path | None) -> None:
        self._cache = cache
        self._artifacts_url = artifacts_url.rstrip("/")
        self._engine_model = engine_model
        self._verified: dict[tuple[str, str], tuple[Path, Fingerprint]] = {}
        self._lock = threading.Lock()

    def require_ours(self, uri: str) -> None:
        """Raises HeadwaterError `weights_elsewhere` unless the weights are published ones or the engine's own model."""
        if "://" in self._artifacts_url:
            is_published = uri.startswith(f"{self._artifacts_url}/") and ".." not in uri.split("/")
        else:
            is_published = Path(self._artifacts_url).resolve() in Path(uri).resolve().parents
        if not is_published and Path(uri).absolute() != self._engine_model:
            sentence = (
                f"Weights must lie under {self._artifacts_url} or be the engine's own model; {uri[:200]!a} does not."
            )
            raise HeadwaterError("weights_elsewhere", sentence, 422)

    def is_published(self, uri: str) -> bool:
        """Whether it is where runs publish their policies: nothing else is ever removed."""
        return _above(_place(f"{self._artifacts_url}/policies"), _place(uri))

    def remove(self, uri: str, content_hash: str, kept: Collection[tuple[str, str]]) -> None:
        """Remove published weights, but for files that the engine was started with or a policy of `kept` (uri, content hash)
        names; again is harmless.

        Raises OSError when the store does not take it.
        """
        place = _place(uri)
        with self._lock:
            self._verified.pop((uri, content_hash), None)
            if all(content_hash != other for _, other in kept):
                shutil.rmtree(self._cache / content_hash, ignore_errors=True)
            needed = [other for other, _ in kept if other]
            if self._engine_model is not None:
                needed.append(str(self._engine_model))
            if not self.is_published(uri) or any(_overlap(place, _place(other)) for other in needed):
                return
            filesystem, root = fsspec.core.url_to_fs(uri if _local(uri) is None else str(PurePosixPath(*place)))
            if filesystem.exists(f"{root}/{HASH_FILE}"):
                filesystem.rm_file(f"{root}/{HASH_FILE}")  # first: what is left of a directory without it is unfinished
            if filesystem.exists(root):
                filesystem.rm(root, recursive=True)

    def fetch(self, uri: str, content_hash: str, kind: PolicyKind) -> Path:
        """The local directory of the weights, absolute.

        Raises HeadwaterError `artifact_missing`, `artifact_damaged`, `unsafe_weights`, `incomplete_weights`,
        `damaged_weights`, `architecture_mismatch`.
        """
        key = (uri, content_hash)
        if (known := self._known(key)) is not None:
            return known
        with self._lock:
            if (known := self._known(key)) is not None:
                return known
            directory = fetch_directory(uri, content_hash, self._cache).absolute()
            if not directory.is_dir():
                raise ConflictError("artifact_missing", f"{uri} is not a directory of weights.")
            self._verify(directory, kind)
            self._verified[key] = (directory, _fingerprint(directory))
            return directory

    def _known(self, key: tuple[str, str]) -> Path | None:
        known = self._verified.get(key)
        return known[0] if known is not None and _fingerprint(known[0]) == known[1] else None

    def _verify(self, directory: Path, kind: PolicyKind) -> None:
        refuse_unsafe(directory)
        require_files(directory, kind)
        tensor_shapes(directory)
        if kind is not PolicyKind.ADAPTER and self._engine_model is not None:
            require_same_architecture(directory, self._engine_model)


def _place(uri: str) -> tuple[str, ...]:
    """Where it is, as parts of a path: the same for every way to write it."""
    local = _local(uri)
    if local is not None:
        return local.resolve().parts
    scheme, _, path = uri.partition("://")
    return (scheme, *(part for part in path.split("/") if part not in ("", ".")))


def _local(uri: str) -> Path | None:
    path = uri.removeprefix("file://")
    return None if "://" in path else Path(path)


def _overlap(place: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return place == other or _above(place, other) or _above(other, place)


def _above(place: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return len(place) < len(other) and other[: len(place)] == place


def _fingerprint(directory: Path) -> Fingerprint:
    found = ((path, path.stat()) for path in sorted(directory.rglob("*")) if path.is_file() and path.name != HASH_FILE)
    return tuple((path.relative_to(directory).as_posix(), status.st_size, status.st_mtime_ns) for path, status in found)


def refuse_unsafe(directory: Path) -> None:
    """Refuse anything that runs code when it is read. Raises HeadwaterError `unsafe_weights`."""
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in UNSAFE_SUFFIXES:
            raise HeadwaterError(
                "unsafe_weights",
                f"{directory} contains {path.name}, which can run code when it is read; publish safetensors only.",
                422,
            )


def require_files(directory: Path, kind: PolicyKind) -> None:
    """Raises HeadwaterError `incomplete_weights` unless the files of this kind of policy are there."""
    config = ADAPTER_CONFIG if kind is PolicyKind.ADAPTER else MODEL_CONFIG
    missing = [name for name in (config,) if not (directory / name).is_file()]
    if not any(directory.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise HeadwaterError("incomplete_weights", f"{directory} has no {' and no '.join(missing)}.", 422)


def tensor_shapes(directory: Path) -> Shapes:
    """Names and shapes of all tensors, from the headers alone. Raises HeadwaterError `damaged_weights`."""
    shapes: Shapes = {}
    for path in sorted(directory.glob("*.safetensors")):
        shapes |= _file_shapes(path)
    return shapes


def _file_shapes(path: Path) -> Shapes:
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if not 2 <= header_bytes <= _MAX_HEADER_BYTES:
            raise _damaged(path, "its header has no sensible length")
        try:
            header = json.loads(file.read(header_bytes))
            tensors = {name: value for name, value in header.items() if name != "__metadata__"}
            end = max((int(value["data_offsets"][1]) for value in tensors.values()), default=0)
            shapes = {name: tuple(int(size) for size in value["shape"]) for name, value in tensors.items()}
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise _damaged(path, "its header is not readable") from error
    expected_bytes, size_bytes = 8 + header_bytes + end, path.stat().st_size
    if size_bytes != expected_bytes:
        raise _damaged(path, f"it has {size_bytes} bytes where its header says {expected_bytes}")
    return shapes


def _damaged(path: Path, why: str) -> HeadwaterError:
    return ConflictError("damaged_weights", f"{path} is damaged: {why}; publish it again.")


def require_same_architecture(checkpoint: Path, engine_model: Path) -> None:
    """A checkpoint must have exactly the tensors of the model that the engine was started with.

    Raises HeadwaterError `architecture_mismatch`. A tied output head may be written or left out.
    """
    ours, theirs = tensor_shapes(checkpoint), tensor_shapes(engine_model)
    if _is_tied(engine_model):
        ours.pop(_TIED_HEAD, None)
        theirs.pop(_TIED_HEAD, None)
    different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if not different:
        return
    first = different[0]
    raise ConflictError(
        "architecture_mismatch",
        f"{checkpoint} does not fit the engine's model {engine_model}: {len(different)} tensors differ, first {first} "
        f"({_shape(ours.get(first))} here, {_shape(theirs.get(first))} in the engine); start an engine with this model.",
    )


def _is_tied(directory: Path) -> bool:
    config = json.loads((directory / MODEL_CONFIG).read_text(encoding="utf-8"))
    return bool(config.get("tie_word_embeddings", False))


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "×".join(str(size) for size in shape) or "scalar"
