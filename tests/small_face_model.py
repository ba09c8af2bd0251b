"""A head of 300 vertices in the two forms in which the head model is read. For tests only.

An ellipsoid of a head's size and place, open at the neck and at the mouth, with two-shelled eyeballs; its left mirrors
its right. `write_packed` makes the packed array file, `write_facekit` the OBJ files of ICT-FaceKit's FaceXModel, with
its numbering of vertices and with parts that are not read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

EXPRESSIONS = [
    *["jawOpen", "mouthSmile_L", "mouthSmile_R", "eyeBlink_L", "eyeBlink_R", "browInnerUp_L", "browInnerUp_R"],
    *["browDown_L", "browDown_R", "mouthPucker", "cheekPuff_L", "cheekPuff_R", "mouthFrown_L", "mouthFrown_R"],
    *["eyeWide_L", "eyeWide_R"],
]
FACEKIT_VERTICES = 26719
PART_STARTS = {"face": 0, "head": 9409, "teeth": 17039, "left eye": 21451, "right eye": 23021}
ROWS, COLUMNS = 16, 28  # both even, so that no row or column is its own mirror image without lying in the middle
_MOUTH_ROW = 11


def _ball(centre: tuple[float, float, float], radii: tuple[float, float, float], rows: int, columns: int) -> np.ndarray:
    """[rows * columns, 3]: rings from the top down to 155 degrees."""
    down, around = np.meshgrid(
        np.radians(np.linspace(4.0, 155.0, rows)), 2.0 * np.pi * np.arange(columns) / columns, indexing="ij"
    )
    unit = np.stack([np.sin(down) * np.sin(around), np.cos(down), np.sin(down) * np.cos(around)], axis=-1)
    return np.array(centre) + np.array(radii) * unit.reshape(-1, 3)


def _rings(rows: int, columns: int) -> list[tuple[int, ...]]:
    """Four-cornered polygons between rings, anticlockwise from outside, and one polygon over the uppermost ring."""
    top: list[tuple[int, ...]] = [tuple(range(columns))]
    return top + [
        (r * columns + c, (r + 1) * columns + c, (r + 1) * columns + (c + 1) % columns, r * columns + (c + 1) % columns)
        for r in range(rows - 1)
        for c in range(columns)
    ]


def _model() -> tuple[list[tuple[str, np.ndarray]], list[tuple[int, ...]]]:
    """Parts with their vertices, in order, and polygons over all of these vertices."""
    head = _ball((0.0, 3.0, 1.0), (8.0, 12.0, 11.0), ROWS, COLUMNS)
    mouth = {(_MOUTH_ROW * COLUMNS, "right"), (_MOUTH_ROW * COLUMNS + COLUMNS - 1, "left")}
    polygons = [p for p in _rings(ROWS, COLUMNS) if len(p) > 4 or p[0] not in {first for first, _ in mouth}]
    front = head[:, 2] > 1.0
    order = np.argsort(~front, kind="stable")
    place = np.argsort(order)
    polygons = [tuple(int(place[corner]) for corner in polygon) for polygon in polygons]
    parts = [("face", head[front]), ("head", head[~front])]
    for name, side in (("left eye", 1.0), ("right eye", -1.0)):
        start = sum(len(vertices) for _, vertices in parts)
        shells = [_ball((side * 3.1, 3.6, 9.6), (r, r, r), 6, 8) for r in (1.6, 1.4)]
        polygons += [tuple(start + 48 * k + corner for corner in p) for k in range(2) for p in _rings(6, 8)]
        parts.append((name, np.concatenate(shells)))
    return parts, polygons


def _deltas(vertices: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Three symmetric identity modes and all expressions, exact in half precision."""
    x, y, z = vertices.T
    still = np.zeros_like(x)
    larger = 0.02 * (vertices - np.array([0.0, 3.0, 1.0]))
    longer = np.column_stack([still, 0.3 * np.sin(y / 6.0), still])
    nosy = np.column_stack([still, still, 0.4 * np.exp(-(x**2) - (y - 0.5) ** 2)])
    expressions = {name: np.zeros_like(vertices) for name in EXPRESSIONS}
    lower = (y < -3.6) & (z > 2.0)
    expressions["jawOpen"][:, 1] = np.where(lower, -3.0, 0.0)
    for name in EXPRESSIONS[1:]:
        side = 1.0 if name.endswith("_L") else -1.0
        height = 4.5 if name.startswith(("eye", "brow")) else -3.4
        expressions[name][:, 1] = 0.5 * np.exp(-((x - side * 2.3) ** 2) - (y - height) ** 2) * (z > 5.0)
    return (
        np.stack([larger, longer, nosy]).astype(np.float16).astype(np.float64),
        {name: delta.astype(np.float16).astype(np.float64) for name, delta in expressions.items()},
    )


def arrays() -> dict[str, np.ndarray]:
    """The arrays of the packed file."""
    parts, polygons = _model()
    vertices = np.concatenate([vertices for _, vertices in parts])
    identity, expressions = _deltas(vertices)
    fans = [(p[0], p[k], p[k + 1]) for p in polygons for k in range(1, len(p) - 1)]
    return {
        "vertices": vertices.astype(np.float32),
        "triangles": np.array(fans, np.uint16),
        "identity": identity.astype(np.float16),
        "expression": np.stack(list(expressions.values())).astype(np.float16),
        "expression_names": np.array(EXPRESSIONS),
        "eyeball_start": np.int64(len(parts[0][1]) + len(parts[1][1])),
    }


def write_packed(path: Path, **changed: np.ndarray) -> Path:
    """Writes the packed file (`ict_face_light.npz` in it, where `path` is a folder), with some arrays changed."""
    path = Path(path)
    if path.suffix != ".npz":
        path.mkdir(parents=True, exist_ok=True)
        path = path / "ict_face_light.npz"
    np.savez_compressed(path, **(arrays() | changed))
    return path


def write_facekit(folder: Path) -> Path:
    """Writes FaceXModel's files: the neutral mesh, three identity modes and the expressions."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts, polygons = _model()
    places = np.concatenate([PART_STARTS[name] + np.arange(len(vertices)) for name, vertices in parts])
    vertices = np.concatenate([vertices for _, vertices in parts])
    identity, expressions = _deltas(vertices)
    teeth = tuple(PART_STARTS["teeth"] + corner for corner in range(4))  # a part that must not be drawn
    faces = ["/".join((str(n + 1), "1")) for n in teeth]
    lines = ["usemtl M_Teeth", "f " + " ".join(faces), "usemtl M_Face"]
    lines += ["f " + " ".join(f"{places[corner] + 1}/{corner + 1}" for corner in polygon) for polygon in polygons]
    shapes = {f"identity{k:03d}": mode for k, mode in enumerate(identity)} | expressions
    shapes["generic_neutral_mesh"] = np.zeros_like(vertices)
    for name, delta in shapes.items():
        everything = ["v 1 1 1"] * FACEKIT_VERTICES
        for place, row in zip(places, vertices + delta, strict=True):
            everything[place] = "v " + " ".join(f"{c:.15f}" for c in row)
        text = ["mtllib ICTFaceModelMaterial.mtl", *everything, "vt 0.5 0.5", *lines]
        (folder / f"{name}.obj").write_text("\n".join(text) + "\n")
    return folder
