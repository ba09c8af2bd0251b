"""What tells one chair from another: a handful of choices and measures, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SEATS = ("square", "round", "cushion")
LEGS = ("straight", "splayed", "pedestal", "sled", "block")
BACKS = ("none", "low", "solid", "slats", "ladder", "curved")
ARMS = ("none", "open", "solid")
WIDTHS = (0.40, 0.90)  # of the seat, from a side chair to a bench for two


@dataclass(frozen=True)
class Chair:
    """One model: kinds by name, lengths in metres, grey levels in 0..1, angles in radians."""

    seat: str
    legs: str
    back: str
    arms: str
    width: float
    depth: float
    seat_height: float  # of its upper side
    seat_thick: float
    back_length: float
    back_thick: float
    tilt: float  # of the back from upright
    hollow: float  # how far the middle of the back lies behind its sides
    crest: float  # how far the back's upper corners lie below its middle, as a share of its length
    arm_height: float  # above the seat
    leg_thick: float
    round_legs: bool
    splay: float  # how far a splayed or tapered leg's foot stands out
    stretcher: float  # height of the bars between the legs; 0 without
    cantilever: bool  # of a sled: nothing holds the seat's rear
    feet: int  # of a pedestal: number of its star's arms; 0 for a disc
    slats: int
    frame_tone: float
    seat_tone: float
    back_tone: float


def draw_chair(rng: np.random.Generator) -> Chair:
    """A chair at random, among those that stand and look like one."""

    def pick(kinds: tuple[str, ...], *weights: float) -> str:
        return kinds[rng.choice(len(kinds), p=weights)]

    between = rng.uniform
    width = WIDTHS[0] + (WIDTHS[1] - WIDTHS[0]) * between() ** 1.4  # benches are fewer than chairs
    wide = width > 0.65
    legs = pick(LEGS, *((0.36, 0.20, 0.00, 0.16, 0.28) if wide else (0.30, 0.20, 0.25, 0.15, 0.10)))
    if legs == "block":
        seats, backs, armed = (0.3, 0.0, 0.7), (0.0, 0.2, 0.5, 0.0, 0.0, 0.3), (0.2, 0.0, 0.8)
    elif wide:
        seats, backs, armed = (0.3, 0.0, 0.7), (0.0, 0.17, 0.24, 0.20, 0.17, 0.22), (0.56, 0.34, 0.10)
    else:
        seats, backs, armed = (0.38, 0.27, 0.35), (0.04, 0.13, 0.24, 0.20, 0.17, 0.22), (0.56, 0.34, 0.10)
    back = pick(BACKS, *backs)
    seat = pick(SEATS, *((0.0, 0.5, 0.5) if back == "none" else seats))  # a square board without a back is a table
    arms = pick(ARMS, *armed) if back != "none" else "none"
    height = between(0.36, 0.44) if legs == "block" else between(0.42, 0.68) if back == "none" else between(0.42, 0.50)
    length = {"low": between(0.24, 0.32), "curved": between(0.28, 0.48)}.get(back, between(0.42, 0.62))
    padded = legs == "block" or seat == "cushion"
    frame_tone = between(0.18, 0.75)
    seat_tone = frame_tone if between() < 0.35 else between(0.22, 0.82)
    return Chair(
        seat=seat,
        legs=legs,
        back=back,
        arms=arms,
        width=width,
        depth=between(0.42, 0.52),
        seat_height=height,
        seat_thick=between(0.09, 0.15) if padded else between(0.035, 0.055),
        back_length=length,
        back_thick=between(0.08, 0.13) if padded else between(0.03, 0.045),
        tilt=np.radians(between(4.0, 15.0)),
        hollow=between(0.0, 0.05),
        crest=between(0.15, 0.55) if back == "curved" else 0.0 if between() < 0.5 else between(0.08, 0.3),
        arm_height=min(between(0.19, 0.26), 0.85 * length),
        leg_thick=between(0.032, 0.055),
        round_legs=bool(between() < 0.5),
        splay=between(0.05, 0.11),
        stretcher=0.0 if between() < 0.5 else between(0.1, 0.25),
        cantilever=bool(between() < 0.6),
        feet=int(rng.choice((0, 4, 5, 5))),
        slats=int(rng.integers(3, 7)),
        frame_tone=frame_tone,
        seat_tone=seat_tone,
        back_tone=seat_tone if padded or between() < 0.5 else frame_tone,
    )
