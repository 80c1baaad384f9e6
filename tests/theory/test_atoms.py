"""Mixing measures, and the frozen experts that they are added to."""

from __future__ import annotations

import math

import pytest
import torch

from tests.theory.mixtures import dot, image
from vpt_analysis.theory.atoms import Atoms
from vpt_analysis.theory.frozen import frozen, normal_draws


def test_atoms_count_and_keep_a_batch():
    atoms = Atoms(torch.zeros(5, 2, 3), {"key": torch.zeros(5, 2, 3, 4), "weight": torch.zeros(5, 2, 3, 1, 4)})
    assert atoms.count == 3 and Atoms(torch.zeros(1), {"key": torch.zeros(1, 2)}).count == 1


@pytest.mark.parametrize(
    ("mass", "blocks", "message"),
    [
        ((), {"key": (2,)}, r"log-masses of shape \(\) and 1 blocks; expected \(\.\.\., L\) and at least 1"),
        ((2,), {}, r"log-masses of shape \(2,\) and 0 blocks"),
        ((2, 3), {"key": (3, 4)}, r"block 'key' has shape \(3, 4\); expected \(2, 3\) and more after it"),
        ((2, 3), {"key": (2, 3, 4), "value": (2, 2, 4)}, r"block 'value' has shape \(2, 2, 4\)"),
        ((2, 3), {"key": (2, 3)}, r"block 'key' has shape \(2, 3\); expected \(2, 3\) and more"),
    ],
)
def test_blocks_that_do_not_begin_with_the_shape_of_the_masses_are_refused(mass, blocks, message):
    with pytest.raises(ValueError, match=message):
        Atoms(torch.zeros(mass), {k: torch.zeros(shape) for k, shape in blocks.items()})


@pytest.mark.parametrize(("d", "outputs", "experts", "hidden"), [(1, 1, 1, 1), (3, 2, 4, 2), (4, 5, 2, 4)])
def test_frozen_experts_have_the_documented_shapes_and_projections(d, outputs, experts, hidden):
    known = frozen(d, outputs, experts, hidden, seed=1)
    assert (known.d, known.outputs) == (d, outputs)
    shapes = {k: tuple(v.shape) for k, v in vars(known).items()}
    assert shapes == {
        "quadratic": (experts, d, d), "offset": (experts,), "expert": (experts, outputs, d), "key": (d, d),
        "value": (outputs, d), "out": (d, hidden),
    }  # fmt: skip
    assert all(v.dtype == torch.float64 for v in vars(known).values())
    assert torch.equal(known.quadratic, known.quadratic.mT)
    torch.testing.assert_close(known.key @ known.key.T, torch.eye(d, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(known.out.T @ known.out, torch.eye(hidden, dtype=torch.float64), rtol=0, atol=1e-14)
    again, other = frozen(d, outputs, experts, hidden, seed=1), frozen(d, outputs, experts, hidden, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(vars(known).values(), vars(again).values(), strict=True))
    assert not torch.equal(known.expert, other.expert)


@pytest.mark.parametrize("d", [4, 16])
def test_scores_and_experts_have_the_size_that_is_promised(d):
    """Standard deviations near 1 over N(0, I), on the average of experts and seeds."""
    scores, outputs = [], []
    for seed in range(5):
        known, x = frozen(d, 3, seed=seed), normal_draws(seed)(d, 2000)
        scores.append(torch.einsum("in,jik,kn->jn", x, known.quadratic, x).std(1).mean())
        outputs.append(torch.einsum("jei,in->jen", known.expert, x).std(2).mean())
    assert 0.5 < torch.stack(scores).mean() < 1.5 and 0.8 < torch.stack(outputs).mean() < 1.2


def test_the_content_is_what_plain_loops_say():
    known = frozen(3, 2, 4, seed=0)
    x = normal_draws(5)(2, 3, 5)
    lse, content = known.content(x)
    assert lse.shape == (2, 5) and content.shape == (2, 2, 5)
    for r in range(2):
        for i in range(5):
            one = x[r, :, i].tolist()
            pairs = zip(known.quadratic.tolist(), known.offset.tolist(), strict=True)
            weights = [math.exp(dot(one, image(A, one)) + a) for A, a in pairs]
            outputs = [image(H, one) for H in known.expert.tolist()]
            assert float(lse[r, i]) == pytest.approx(math.log(math.fsum(weights)), rel=1e-12)
            for e in range(2):
                mean = dot(weights, [o[e] for o in outputs]) / math.fsum(weights)
                assert float(content[r, e, i]) == pytest.approx(mean, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("name", ["d", "outputs", "experts", "hidden"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0; expected at least 1"):
        frozen(**{"d": 2, "outputs": 2, "experts": 2, "hidden": 1} | {name: 0})
    with pytest.raises(ValueError, match="hidden is 3, more than d = 2"):
        frozen(2, 2, hidden=3)
