"""Prompts that do not depend on the input: tied (VPT), untied (prefix tuning), and untied behind NoRGa's gate.

A tied prompt is an untied one with (k, v) = (K p, V p): the same derivatives behind another linear map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .experts import ONE, Derivatives, Family


class Untied(Family):
    name = "untied"

    @property
    def shapes(self):
        return {"key": (self.known.d,), "value": (self.known.outputs,)}

    def linear(self, blocks):
        return torch.cat([blocks["key"], blocks["log_mass"].unsqueeze(-1)], -1), blocks["value"]

    def experts(self, keys, values, x):
        return keys, values.unsqueeze(-1)

    def derivatives(self, keys, values, x):
        each = {(j, j): ONE for j in range(self.count)}
        return Derivatives(score=each, value=each)

    def draw(self, directions, normal):
        return {"key": directions, "value": 1.5 * normal(self.count, self.known.outputs)}


class Tied(Untied):
    name = "tied"

    @property
    def shapes(self):
        return {"prompt": (self.known.d,)}

    def linear(self, blocks):
        prompt = blocks["prompt"]
        return super().linear(blocks | {"key": prompt @ self.known.key.T, "value": prompt @ self.known.value.T})

    def draw(self, directions, normal):
        return {"prompt": directions @ self.known.key}  # K is orthonormal: K p is the direction


@dataclass(frozen=True)
class Norga(Untied):
    alpha: float = 1.0
    tau: float = 1.0

    name = "norga"

    def linear(self, blocks):
        return torch.cat([F.pad(blocks["key"], (0, 1)), self.constant(blocks["log_mass"])], 1), blocks["value"]

    def experts(self, keys, values, x):
        t, log_mass = keys.chunk(2, 1)
        return t + self.alpha * torch.tanh(self.tau * t) + log_mass, values.unsqueeze(-1)

    def derivatives(self, keys, values, x):
        count, a, b = self.count, self.alpha, self.tau
        t = torch.tanh(b * keys[:, :count])
        slope, bend = 1 + a * b * (1 - t.square()), -2 * a * b**2 * t * (1 - t.square())
        each = {(j, j): ONE for j in range(count)}
        score = {(j, j): slope[:, j] for j in range(count)} | {(count + j, j): ONE for j in range(count)}
        return Derivatives(score=score, value=each, score_bends={(j, j, j): bend[:, j] for j in range(count)})
