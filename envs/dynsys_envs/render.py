"""Frames: a scene drawn by matplotlib into one figure that is kept from frame to frame."""

from typing import Any

import numpy as np

from dynsys.errors import require
from dynsys_envs.functional import AbstractEnvironment

PIXELS, DOTS = 400, 100


class Renderer:
    """Draws the scene of an environment as RGB arrays (400, 400, 3), uint8."""

    def __init__(self, environment: AbstractEnvironment):
        require("matplotlib", extra="report", who="rendering an environment of dynsys")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._environment = environment
        figure = Figure(figsize=(PIXELS / DOTS, PIXELS / DOTS), dpi=DOTS)
        self._canvas = FigureCanvasAgg(figure)
        self._axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self._lines: list[Any] = []
        self._framed = False

    def frame(self, states: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """The frame after the states (T, M) and inputs (T, K) of an episode."""
        scene = self._environment.scene(self._environment, states, inputs)
        if not self._framed:
            self._frame(scene)
        while len(self._lines) < len(scene.lines):
            self._lines += self._axes.plot([], [], solid_capstyle="round")
        for drawn, line in zip(self._lines, scene.lines, strict=False):
            drawn.set_data(np.asarray(line.x, float), np.asarray(line.y, float))
            drawn.set(color=line.color, visible=True)
            if line.marker:
                drawn.set(marker=line.marker, markersize=line.width, markeredgewidth=2, linestyle="none")
            else:
                drawn.set(linewidth=line.width, marker="", linestyle="-")
        for drawn in self._lines[len(scene.lines) :]:
            drawn.set_visible(False)
        left, right, bottom, top = scene.window
        self._axes.set_xlim(left, right)
        self._axes.set_ylim(bottom, top)
        self._canvas.draw()
        return np.array(self._canvas.buffer_rgba())[..., :3]

    def _frame(self, scene: Any) -> None:
        """Axes with labels, or none at all; once."""
        self._framed = True
        if scene.equal:
            self._axes.set_aspect("equal", adjustable="box")
        if scene.labels is None:
            self._axes.set_axis_off()
            return
        self._axes.set_position((0.18, 0.13, 0.79, 0.84))
        self._axes.set_xlabel(scene.labels[0])
        self._axes.set_ylabel(scene.labels[1])
