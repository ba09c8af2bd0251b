"""Reading the head model ICT-FaceKit (MIT licence) from its authors' files, or from one packed array.

By the numbering of its README, face, back of the head and neck, eye sockets and eyeballs are read.
"""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import DataError, UserError
from shards.renderers.face_model import FaceModel, finished
from shards.renderers.mesh import Floats
from shards.sources.damage import DAMAGE, reason

PACKED = "ict_face_light.npz"
MODES = 60  # of ICT's 100: the others move the surface by less than a millimetre together
_NEUTRAL = "generic_neutral_mesh.obj"
# First and last vertex of the parts that are read, as ICT-FaceKit's README numbers them.
_PARTS = ((0, 9408), (9409, 11247), (13294, 13677), (13678, 14061), (21451, 23020), (23021, 24590))
_EYEBALLS_FROM = 4  # the first of these parts that is an eyeball
_HEAD = (25, 34, 22)  # extent of the neutral head along x, y and z in centimetres
_OUT = 3.0  # a head that is this many times smaller or larger is none
EXPRESSIONS = (
    *("jawOpen", "mouthSmile_L", "mouthSmile_R", "eyeBlink_L", "eyeBlink_R", "browInnerUp_L", "browInnerUp_R"),
    *("browDown_L", "browDown_R", "mouthPucker", "cheekPuff_L", "cheekPuff_R", "mouthFrown_L", "mouthFrown_R"),
    *("eyeWide_L", "eyeWide_R"),
)


def read(path: str, kind: str) -> FaceModel:
    """Reads the model from ICT-FaceKit's folder (or its FaceXModel), or from the packed file (or the folder it is in).

    Args:
        kind: the name of the source that asks, for messages.

    Raises:
        DataError: nothing there, or damaged, or of other shapes. UserError: no path.
    """
    what = (
        "the head model ICT-FaceKit (MIT licence): fetch https://github.com/USC-ICT/ICT-FaceKit and give its folder "
        f"FaceXModel, or give the packed {PACKED}, as --path"
    )
    if not path:
        raise UserError(f"{kind} needs {what}")
    root = Path(path)
    for folder in (root, root / "FaceXModel"):
        if (folder / _NEUTRAL).is_file():
            return finished(_facekit(folder))
    packed = root / PACKED if root.is_dir() else root
    if not packed.is_file():
        raise DataError(f"{path} holds neither {_NEUTRAL} nor {PACKED}; {kind} needs {what}")
    return finished(_packed(packed))


def _packed(path: Path) -> FaceModel:
    """Reads `vertices`, `triangles`, `identity`, `expression`, `expression_names` and `eyeball_start`."""
    names = ("vertices", "triangles", "identity", "expression", "expression_names", "eyeball_start")
    try:
        with np.load(path, allow_pickle=False) as data:
            found = {name: data[name] for name in names if name in data}
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read ({reason(error)}): it is torn or no npz file; fetch it anew") from None
    missing = [name for name in names if not isinstance(found.get(name), np.ndarray)]
    if missing:
        raise DataError(f"{path} has no array {missing[0]!r}: it is not a packed ICT-FaceKit model")
    vertices, triangles, identity, expression, labels, start = (found[name] for name in names)
    count = len(vertices) if vertices.ndim else 0
    wanted = {
        "vertices": (vertices, (count, 3), "f"),
        "triangles": (triangles, (len(triangles) if triangles.ndim else 0, 3), "iu"),
        "identity": (identity, (len(identity) if identity.ndim else 0, count, 3), "f"),
        "expression": (expression, (labels.size, count, 3), "f"),
        "expression_names": (labels, (labels.size,), "U"),
        "eyeball_start": (start, (), "iu"),
    }
    for name, (array, shape, kinds) in wanted.items():
        if array.shape != shape or array.dtype.kind not in kinds or 0 in shape:
            raise DataError(f"{path}: {name} is {array.dtype} {array.shape}, not of shape {shape}: fetch the file anew")
    if int(triangles.max()) >= count or int(triangles.min()) < 0:
        raise DataError(f"{path}: a triangle has a corner {int(triangles.max())}, but there are {count} vertices")
    if not 0 <= int(start) <= count:
        raise DataError(f"{path}: eyeball_start is {int(start)}, but there are {count} vertices: fetch the file anew")
    model = FaceModel(
        _single(vertices),
        triangles.astype(np.int32),
        _single(identity[:MODES]),
        {str(name): _single(expression[i]) for i, name in enumerate(labels)},
        (triangles >= int(start)).all(axis=1),
        np.zeros(len(triangles), bool),
        hashlib.sha256(path.read_bytes()).digest(),
    )
    return _checked(model, path)


def _facekit(folder: Path) -> FaceModel:
    """Reads ICT-FaceKit's own OBJ files: the neutral mesh, `identity000.obj` ... and those of our expressions."""
    state = hashlib.sha256()
    chosen = np.concatenate([np.arange(first, last + 1) for first, last in _PARTS])
    raw = _bytes(folder / _NEUTRAL, state)
    everything = _vertices(raw, folder / _NEUTRAL)
    if len(everything) <= chosen[-1]:
        raise DataError(f"{folder / _NEUTRAL} has {len(everything)} vertices: at least {chosen[-1] + 1} are needed")
    neutral = everything[chosen]
    place = np.full(len(everything), -1, np.int64)
    place[chosen] = np.arange(len(chosen))
    triangles = _triangles(raw, folder / _NEUTRAL)
    if triangles.size == 0 or not 0 <= triangles.min() <= triangles.max() < len(everything):
        raise DataError(f"{folder / _NEUTRAL} has no polygons, or one beyond its vertices: fetch it anew")
    triangles = place[triangles]
    triangles = triangles[(triangles >= 0).all(axis=1)]

    def delta(path: Path) -> Floats:
        vertices = _vertices(_bytes(path, state), path)
        if len(vertices) != len(everything):
            raise DataError(f"{path} has {len(vertices)} vertices, {_NEUTRAL} has {len(everything)}: fetch it anew")
        return _single(vertices[chosen] - neutral)

    modes = [folder / f"identity{k:03d}.obj" for k in range(MODES)]
    modes = [path for path in modes if path.is_file()]
    if not modes:
        raise DataError(f"{folder} has no identity000.obj: give ICT-FaceKit's whole FaceXModel folder")
    eyes = triangles.min(axis=1) >= sum(last + 1 - first for first, last in _PARTS[:_EYEBALLS_FROM])
    model = FaceModel(
        _single(neutral),
        triangles.astype(np.int32),
        np.stack([delta(path) for path in modes]),
        {name: delta(folder / f"{name}.obj") for name in EXPRESSIONS},
        eyes,
        np.zeros(len(triangles), bool),
        state.digest(),
    )
    return _checked(model, folder)


def _bytes(path: Path, state: hashlib._Hash) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): give ICT-FaceKit's whole FaceXModel folder"
        ) from None
    state.update(data)
    return data


def _vertices(data: bytes, path: Path) -> NDArray[np.float64]:
    """[V, 3]: the `v x y z` lines of an OBJ file."""
    lines = [line[2:] for line in data.splitlines() if line.startswith(b"v ")]
    try:
        return np.array([float(number) for number in b" ".join(lines).split()]).reshape(len(lines), 3)
    except ValueError:
        raise DataError(f"{path} has a damaged vertex line: fetch it anew") from None


def _triangles(data: bytes, path: Path) -> NDArray[np.int64]:
    """[T, 3]: the `f` lines of an OBJ file, polygons cut into fans, corners numbered from 0.

    There they are numbered from 1, or from -1 backwards from the vertex before the line.
    """
    fans: list[tuple[int, int, int]] = []
    vertices = 0
    try:
        for line in data.splitlines():
            if line.startswith(b"v "):
                vertices += 1
            elif line.startswith(b"f "):
                numbers = [int(corner.split(b"/")[0]) for corner in line.split()[1:]]
                if len(numbers) < 3 or 0 in numbers:
                    raise ValueError
                corners = [number - 1 if number > 0 else vertices + number for number in numbers]
                fans.extend((corners[0], b, c) for b, c in itertools.pairwise(corners[1:]))
        return np.array(fans, np.int64).reshape(-1, 3)
    except (ValueError, OverflowError):
        raise DataError(f"{path} has a damaged polygon line: fetch it anew") from None


def _checked(model: FaceModel, path: Path) -> FaceModel:
    missing = [name for name in EXPRESSIONS if name not in model.expressions]
    if missing:
        raise DataError(f"{path} has no expression {missing[0]!r}: fetch it anew")
    for array in (model.neutral, model.identity, *model.expressions.values()):
        if not np.isfinite(array).all():
            raise DataError(f"{path} has coordinates that are not finite: fetch it anew")
    corners = model.neutral[model.triangles].astype(np.float64)  # [T, 3, 3]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    drawn = corners[area > 0.0].reshape(-1, 3)
    extent = np.ptp(drawn, axis=0) if len(drawn) else np.zeros(3)
    if (extent * _OUT < _HEAD).any() or (extent > np.multiply(_HEAD, _OUT)).any():
        sides = " x ".join(f"{side:.3g}" for side in extent)
        raise DataError(
            f"{path}: its triangles span {sides}, ICT-FaceKit's {_HEAD[0]} x {_HEAD[1]} x {_HEAD[2]} centimetres: it "
            "is damaged, or in another unit; fetch it anew"
        )
    farthest = max(float(np.abs(array).max()) for array in (model.identity, *model.expressions.values()))
    if farthest > max(_HEAD):
        raise DataError(f"{path}: a mode moves the surface by {farthest:.3g} centimetres: it is damaged, fetch it anew")
    return model


def _single(values: NDArray[Any]) -> Floats:
    """As float32; what is beyond it becomes infinite, and is refused as such."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
