"""The parts of a parametric chair as closed solids.

Lengths are metres. The seat's middle stands over the origin; x to the sitter's left, y up, z the way the chair faces.
Every chair is the same on both sides of x = 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shards.renderers.chair_model import Chair
from shards.renderers.lofts import (
    Array,
    Solid,
    bar,
    bent,
    both_sides,
    box,
    circle,
    loft,
    slab,
    superellipse,
    sweep,
)


def solids(chair: Chair) -> list[Solid]:
    """All parts of a chair."""
    parts = _seat(chair) + _LEGS[chair.legs](chair)
    if chair.back != "none":
        parts += _Back(chair).solids()
    if chair.arms != "none":
        parts += _arms(chair)
    return parts


def _edge(chair: Chair, z: float) -> float:
    """Half the seat's width at a depth."""
    if chair.seat != "round":
        return chair.width / 2.0
    return chair.width / 2.0 * float(np.sqrt(max(0.0, 1.0 - (2.0 * z / chair.depth) ** 2)))


def _under(chair: Chair) -> float:
    """The height at which legs enter the seat."""
    return chair.seat_height - 0.6 * chair.seat_thick


def _seat(chair: Chair) -> list[Solid]:
    power = {"square": 12.0, "round": 2.0, "cushion": 6.0}[chair.seat]
    if chair.back == "curved":  # its rear follows the shell
        power = min(power, 3.5)
    outline = superellipse(chair.width / 2.0, chair.depth / 2.0, power)
    rounding = (0.45 if chair.seat == "cushion" else 0.2) * chair.seat_thick
    bottom = chair.seat_height - chair.seat_thick
    return [slab(outline, bottom, chair.seat_height, rounding, tone=chair.seat_tone)]


def _stands(chair: Chair) -> tuple[float, float, float]:
    """Where legs enter the seat: half their distance in x, and z in front and behind."""
    inset = chair.leg_thick / 2.0 + 0.015
    z = 0.33 * chair.depth if chair.seat == "round" else chair.depth / 2.0 - inset
    return _edge(chair, z) - inset, z, -z


def _straight(chair: Chair) -> list[Solid]:
    x, front, rear = _stands(chair)
    parts: list[Solid] = []
    thin = 0.75 * chair.leg_thick if chair.round_legs else chair.leg_thick
    for z in (front, rear):
        leg = bar((x, _under(chair), z), (x, 0.0, z), chair.leg_thick, thin, chair.round_legs, tone=chair.frame_tone)
        parts += both_sides(leg)
    if chair.seat == "square":  # the apron below the seat
        low, high = chair.seat_height - chair.seat_thick - 0.05, chair.seat_height - chair.seat_thick / 2.0
        parts.append(box((-x, low, rear), (x, high, front), tone=chair.frame_tone))
    return parts + _stretchers(chair, (x, front, rear), 0.0)


def _splayed(chair: Chair) -> list[Solid]:
    x, front, rear = _stands(chair)
    x, front, rear = x - 0.03, front - 0.02, rear + 0.02
    parts: list[Solid] = []
    for z, out in ((front, chair.splay), (rear, -chair.splay)):
        foot = (x + 0.8 * chair.splay, 0.0, z + out)
        leg = bar(
            (x, _under(chair), z), foot, 1.1 * chair.leg_thick, 0.65 * chair.leg_thick, True, tone=chair.frame_tone
        )
        parts += both_sides(leg)
    return parts + _stretchers(chair, (x, front, rear), chair.splay)


def _stretchers(chair: Chair, stands: tuple[float, float, float], splay: float) -> list[Solid]:
    """Bars between the legs of each side, and one across."""
    if not chair.stretcher:
        return []
    x, front, rear = stands
    out = splay * (1.0 - chair.stretcher / _under(chair))
    x, front, rear = x + 0.8 * out, front + out, rear - out
    thick = max(0.024, 0.6 * chair.leg_thick)
    y = chair.stretcher
    side = bar((x, y, front), (x, y, rear), thick, None, chair.round_legs, tone=chair.frame_tone)
    middle = bar((-x, y, 0.0), (x, y, 0.0), thick, None, chair.round_legs, tone=chair.frame_tone)
    return [*both_sides(side), middle]


def _pedestal(chair: Chair) -> list[Solid]:
    thick = 1.3 * chair.leg_thick
    column = bar((0.0, 0.02, 0.0), (0.0, _under(chair), 0.0), thick, None, True, tone=chair.frame_tone)
    plate_y = chair.seat_height - chair.seat_thick
    plate = slab(circle(12) * 0.12, plate_y - 0.025, plate_y + 0.5 * chair.seat_thick, 0.0, tone=chair.frame_tone)
    reach = 0.20 + 0.12 * chair.width
    if not chair.feet:
        disc = loft(
            np.stack([_level(circle(20) * r, y) for r, y in ((reach, 0.0), (reach, 0.018), (0.04, 0.06))]),
            chair.frame_tone,
        )
        return [column, plate, disc]
    parts = [column, plate]
    for arm in range(chair.feet):
        turn = 2.0 * np.pi * (arm + 0.5 * (chair.feet == 4)) / chair.feet
        way = np.array([np.sin(turn), 0.0, np.cos(turn)])
        lift = np.array([0.0, 1.0, 0.0])
        end = way * reach + lift * 0.06
        parts.append(bar(lift * 0.10, end, 0.048, 0.032, tone=chair.frame_tone))
        parts.append(bar(end + lift * 0.012, way * reach, 0.045, None, True, tone=0.6 * chair.frame_tone))
    return parts


def _level(outline: Array, y: float) -> Array:
    """[K, 2] of x and z -> [K, 3] at a height."""
    return np.stack([outline[:, 0], np.full(len(outline), y), outline[:, 1]], 1)


def _sled(chair: Chair) -> list[Solid]:
    x, front, rear = _stands(chair)
    y, foot = _under(chair), 0.5 * chair.leg_thick
    corners = [(x, y, rear), (x, y, front), (x, foot, front + 0.02), (x, foot, rear - 0.02)]
    if not chair.cantilever:
        corners = [(x, y, rear), (x, foot, rear - 0.04), (x, foot, front + 0.04), (x, y, front)]
    side = sweep(bent(corners, 0.07), chair.leg_thick, tone=chair.frame_tone)
    across = [
        bar((-x, foot, z), (x, foot, z), chair.leg_thick, None, True, tone=chair.frame_tone)
        for z in ((rear - 0.02,) if chair.cantilever else (rear + 0.06, front - 0.06))
    ]
    return [*both_sides(side), *across]


def _block(chair: Chair) -> list[Solid]:
    x, z = chair.width / 2.0 - 0.01, chair.depth / 2.0 - 0.01
    base = box((-x, 0.07, -z), (x, _under(chair), z), tone=0.92 * chair.seat_tone)
    foot = [
        bar((x - 0.04, 0.08, at), (x - 0.04, 0.0, at), 0.05, 0.04, chair.round_legs, tone=chair.frame_tone)
        for at in (z - 0.04, 0.04 - z)
    ]
    return [base, *both_sides(foot[0]), *both_sides(foot[1])]


_LEGS: dict[str, Callable[[Chair], list[Solid]]] = {
    "straight": _straight,
    "splayed": _splayed,
    "pedestal": _pedestal,
    "sled": _sled,
    "block": _block,
}


class _Back:
    """The surface that all pieces of a back lie on: u in -1..1 from side to side, s in 0..1 upwards.

    A back is hollow about an upright axis, that of `curved` so far that it stands around the sitter.
    """

    def __init__(self, chair: Chair) -> None:
        self.chair = chair
        thick = chair.back_thick
        if chair.back == "curved":
            self.angle = np.radians(74.0)
            self.ends = (0.0 if chair.seat == "round" else 0.06) * chair.depth
            self.hollow = self.ends + chair.depth / 2.0 - thick / 2.0
            self.half = _edge(chair, 0.0) - thick / 2.0
        else:
            self.angle = np.radians(30.0)
            self.hollow = chair.hollow
            self.ends = -0.33 * chair.depth if chair.seat == "round" else -chair.depth / 2.0 + thick / 2.0
            self.half = _edge(chair, self.ends) - max(thick, chair.leg_thick) / 2.0

    def at(self, u: float | Array, s: float | Array) -> Array:
        """Points of the surface; [..., 3]."""
        u, s = np.broadcast_arrays(u, s)
        turn = u * self.angle
        bend = (np.cos(turn) - np.cos(self.angle)) / (1.0 - np.cos(self.angle))
        rise = s * self.chair.back_length
        lean = bend if self.chair.back == "curved" else 1.0  # the ends of a shell stay over the seat
        return np.stack(
            [
                self.half * np.sin(turn) / np.sin(self.angle),
                self.chair.seat_height - 0.02 + rise * np.cos(self.chair.tilt),
                self.ends - self.hollow * bend - rise * np.sin(self.chair.tilt) * lean,
            ],
            axis=-1,
        )

    def piece(
        self, u: tuple[float, float], s: tuple[float, float], thick: float, soft: bool = False, crest: float = 0.0
    ) -> Solid:
        """A board between two `u` and two `s`; `crest` lowers its upper corners, `soft` rounds all its edges."""
        steps = max(1, round((u[1] - u[0]) * (9 if self.chair.back == "curved" or crest else 4)))
        across = np.linspace(u[0], u[1], steps + 1)
        low, high = self.at(across, s[0]), self.at(across, s[1] - crest * np.abs(across) ** 2.5)
        section = superellipse(0.5, 0.5, 5.0, 12) if soft else circle(4) * np.sqrt(0.5)
        upwards = section[:, :1] * (high - low)[:, None]
        forwards = section[:, 1:] * thick * self._inwards(across)[:, None]
        rings = ((low + high) / 2.0)[:, None] + upwards + forwards
        return loft(_with_soft_ends(rings, thick) if soft else rings, self.chair.back_tone, sharp=not soft)

    def _inwards(self, u: Array) -> Array:
        """Unit vectors from the surface towards the sitter; [M, 3]."""
        deep = 1.0 if self.chair.back == "curved" else 4.0  # a nearly flat back faces ahead all over
        way = np.stack([-np.sin(u * self.angle), np.zeros_like(u), deep * np.cos(u * self.angle)], axis=1)
        unit: Array = way / np.linalg.norm(way, axis=1, keepdims=True)
        return unit

    def solids(self) -> list[Solid]:
        chair, thick = self.chair, self.chair.back_thick
        soft = thick > 0.06
        if chair.back == "curved":
            return [self.piece((-1.0, 1.0), (0.0, 1.0), min(thick, 0.07), soft, chair.crest)]
        if chair.back == "solid" or (chair.back == "low" and soft):
            raised = 0.0 if soft or chair.crest else 0.28
            panel = self.piece((-1.0, 1.0), (raised, 1.0), thick, soft, chair.crest)
            return [panel] if not raised else [panel, *self._posts(0.95)]
        if chair.back == "low":
            return [self.piece((-1.0, 1.0), (0.5, 1.0), thick), *self._posts(0.95)]
        if chair.back == "ladder":
            rungs = max(3, chair.slats - 2)
            pitch = 0.84 / rungs
            boards = [
                self.piece((-1.0, 1.0), (0.16 + i * pitch, 0.16 + (i + 0.55) * pitch), 0.03) for i in range(rungs)
            ]
            return [*boards, *self._posts(1.0)]
        return self._slats()

    def _posts(self, top: float) -> list[Solid]:
        """The two posts at the sides of a back."""
        return both_sides(self._upright(1.0, top, max(0.034, 0.9 * self.chair.leg_thick)))

    def _upright(self, u: float, top: float, thick: float) -> Solid:
        chair = self.chair
        return bar(self.at(u, 0.0), self.at(u, top), thick, None, chair.round_legs, tone=chair.frame_tone)

    def _slats(self) -> list[Solid]:
        """A top rail on upright bars."""
        chair = self.chair
        rail = self.piece((-1.0, 1.0), (0.80, 1.0), 0.036, crest=min(0.08, chair.crest))
        spread = np.linspace(-1.0, 1.0, chair.slats + 2)[1:-1] * 0.95
        bars = [self._upright(u, 0.86, 0.026) for u in spread]
        return [rail, *bars, *self._posts(0.9)]


def _with_soft_ends(rings: Array, thick: float) -> Array:
    """Moves the first and the last outline inwards, and closes each with a smaller one in its place; [M + 2, K, 3]."""
    outer = rings[[0, -1]]
    middle = outer.mean(axis=1, keepdims=True)
    inwards = np.stack([rings[1] - rings[0], rings[-2] - rings[-1]])
    inwards *= 0.25 * thick / np.linalg.norm(inwards, axis=-1, keepdims=True)
    closing = middle + 0.82 * (outer - middle)
    return np.concatenate([closing[:1], outer[:1] + inwards[:1], rings[1:-1], outer[1:] + inwards[1:], closing[1:]])


def _arms(chair: Chair) -> list[Solid]:
    """Arm rests from the back to the front of the seat."""
    back = _Back(chair)
    share = chair.arm_height / chair.back_length
    start = back.at(1.0, share)
    front = 0.2 * chair.depth if chair.seat == "round" else 0.36 * chair.depth
    front = max(front, back.ends + 0.12)
    if chair.arms == "solid":
        thick = 0.11 if chair.seat_thick > 0.08 else 0.05
        low = 0.07 if chair.legs == "block" else chair.seat_height - chair.seat_thick
        x = _edge(chair, 0.0) if chair.seat == "round" else chair.width / 2.0 - 0.01
        outline = superellipse(thick / 2.0, (front - back.ends + 0.1) / 2.0, 8.0)
        outline += (x + thick / 2.0 - 0.01, (front + back.ends) / 2.0)
        panel = slab(outline, low, chair.seat_height + chair.arm_height, 0.35 * thick, tone=chair.back_tone)
        return both_sides(panel)
    x = _edge(chair, front) + 0.01
    y = chair.seat_height + chair.arm_height
    foot = (x - 0.015, chair.seat_height - 0.6 * chair.seat_thick, front)
    path = bent([start, (x, y, front), foot], 0.05)
    return both_sides(sweep(path, max(0.036, chair.leg_thick), chair.round_legs, tone=chair.frame_tone))
