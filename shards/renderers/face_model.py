"""A morphable model of the head: what it is made of, and how a head is made from it.

A head is the neutral one, plus a sum of identity modes (scaled so that weights drawn from N(0, 1) give the heads of
the people who were scanned), plus expressions between 0 and 1. Axes as in `mesh`: x to the left of the person, which is
the image's right, y up, z out of the face; about a centimetre is 1.

The model is ICT-FaceKit's (see `face_files`): face, back of the head and neck, eye sockets and eyeballs; no teeth and
no tongue. The mouth is closed behind the lips by a fan of triangles, and of each eyeball only the outermost shell is
kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.renderers.mesh import Floats

_MOUTH_DEPTH = 1.5  # how far behind the lips the mouth is closed


@dataclass(frozen=True)
class FaceModel:
    """A head and how it varies.

    Attributes:
        neutral: [V, 3] float32.
        triangles: [T, 3] int32, anticlockwise from outside.
        identity: [K, V, 3] float32.
        expressions: name -> [V, 3] float32.
        eyes: [T] bool, the triangles of the eyeballs.
        mouth: [T] bool, the triangles behind the lips.
        digest: sha256 of the files that it was read from.
    """

    neutral: Floats
    triangles: NDArray[np.int32]
    identity: Floats
    expressions: dict[str, Floats]
    eyes: NDArray[np.bool_]
    mouth: NDArray[np.bool_]
    digest: bytes

    def head(self, weights: Floats, expression: dict[str, float] | None = None) -> Floats:
        """Vertices [V, 3] float32 of a head.

        Args:
            weights: [K] float32, of the identity modes.
            expression: name -> weight between 0 and 1.
        """
        # einsum and not @: BLAS may add up in another order where it has more threads.
        vertices = self.neutral + np.einsum("k,kvc->vc", weights, self.identity)
        for name, weight in (expression or {}).items():
            vertices += np.float32(weight) * self.expressions[name]
        return np.asarray(vertices, np.float32)

    def coarsened(self, cell: float, apart: str = "") -> FaceModel:
        """The model with one vertex per cube of this side: quicker to draw, for images whose pixels are larger.

        Args:
            cell: side of a cube.
            apart: an expression; vertices that it parts are not merged, such as those of closed lips by `jawOpen`.
        """
        places = [self.neutral, self.neutral + self.expressions[apart]] if apart else [self.neutral]
        bins = [np.floor(place / cell).astype(np.int64) for place in places]
        _, groups = np.unique(np.column_stack([*bins, self._surface()]), axis=0, return_inverse=True)
        groups = groups.ravel()
        size = np.bincount(groups)
        middle = np.stack([np.bincount(groups, self.neutral[:, axis]) / size for axis in range(3)], axis=1)
        distance = ((self.neutral - middle[groups]) ** 2).sum(axis=1)
        order = np.lexsort((distance, groups))
        kept = order[np.flatnonzero(np.diff(groups[order], prepend=-1))]  # of each group, the vertex nearest its middle
        triangles = groups[self.triangles]
        a, b, c = triangles.T
        whole = (a != b) & (b != c) & (c != a)
        return self._with(kept, triangles[whole], whole)

    def _surface(self) -> NDArray[np.int64]:
        """[V]: 1 for the vertices of eyeballs, 2 for the mouth's back, 0 for skin: these must not merge."""
        surface = np.zeros(len(self.neutral), np.int64)
        surface[self.triangles[self.mouth]] = 2
        surface[self.triangles[self.eyes]] = 1
        surface[self.triangles[~self.mouth & ~self.eyes]] = 0
        return surface

    def _with(self, vertices: NDArray[Any], triangles: NDArray[Any], kept: NDArray[np.bool_]) -> FaceModel:
        """The model with some of its vertices, and with triangles made from those `kept`."""
        return FaceModel(
            self.neutral[vertices],
            triangles.astype(np.int32),
            np.ascontiguousarray(self.identity[:, vertices]),
            {name: delta[vertices] for name, delta in self.expressions.items()},
            self.eyes[kept],
            self.mouth[kept],
            self.digest,
        )


def finished(model: FaceModel) -> FaceModel:
    """The model as read, made ready to draw: without what nothing shows, and with the mouth closed."""
    return _closed(_without_hidden(model))


def _without_hidden(model: FaceModel) -> FaceModel:
    """The model without the inner shells of the eyeballs, which nothing shows, and without unused vertices."""
    from scipy.sparse.csgraph import connected_components

    a = model.triangles[:, 0]
    edges = np.concatenate([model.triangles[:, :2], model.triangles[:, 1:]])
    shells = connected_components(_graph(edges, len(model.neutral)), directed=False)[1]
    kept = ~model.eyes
    for side in (-1.0, 1.0):
        here = model.eyes & (model.neutral[a, 0] * side > 0.0)
        if here.any():
            outermost = shells[a[here][np.argmax(model.neutral[a[here], 2])]]
            kept |= here & (shells[a] == outermost)
    used, corners = np.unique(model.triangles[kept], return_inverse=True)
    return model._with(used, corners.reshape(-1, 3), kept)


def _closed(model: FaceModel) -> FaceModel:
    """The model with a fan of triangles from the opening between the lips to a point behind it."""
    from scipy.sparse.csgraph import connected_components

    skin = model.triangles[~model.eyes]
    edges = np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]])
    _, first, count = np.unique(np.sort(edges, axis=1), axis=0, return_index=True, return_counts=True)
    rims = edges[first[count == 1]]  # of the mouth, and of the neck's end
    loops = connected_components(_graph(rims, len(model.neutral)), directed=False)[1][rims[:, 0]]
    depth = model.neutral[:, 2]
    found = [rims[loops == loop] for loop in np.unique(loops)]
    found = [loop for loop in found if depth[loop].min() > depth.mean()]
    if not found:
        return model
    rim = max(found, key=lambda loop: float(depth[loop].mean()))
    lips = np.unique(rim)

    def extended(values: Floats) -> Floats:
        return np.concatenate([values, values[..., lips, :].mean(axis=-2, keepdims=True)], axis=-2)

    neutral = extended(model.neutral)
    neutral[-1, 2] -= _MOUTH_DEPTH
    fan = np.column_stack([rim[:, ::-1], np.full(len(rim), len(neutral) - 1)]).astype(np.int32)
    return FaceModel(
        neutral,
        np.concatenate([model.triangles, fan]),
        extended(model.identity),
        {name: extended(delta) for name, delta in model.expressions.items()},
        np.concatenate([model.eyes, np.zeros(len(fan), bool)]),
        np.concatenate([model.mouth, np.ones(len(fan), bool)]),
        model.digest,
    )


def _graph(edges: NDArray[np.int32], vertices: int) -> Any:
    """Edges [E, 2] as a sparse matrix."""
    from scipy.sparse import coo_matrix

    return coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(vertices, vertices))
