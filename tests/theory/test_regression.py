"""The regression of prompt mixtures: its formula in plain loops, its invariances, T9, samples and teachers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.theory.mixtures import KINDS, NAMES, permuted, pieces, plain_predict, problem
from vpt_analysis.theory import symbolic
from vpt_analysis.theory.atoms import Atoms
from vpt_analysis.theory.frozen import frozen, normal_draws
from vpt_analysis.theory.least_squares import BOX
from vpt_analysis.theory.regression import Sample, function_error, hash_seed, model, sample, teacher

SIZES = pytest.mark.parametrize(
    ("d", "outputs", "count", "experts"), [(1, 1, 1, 1), (2, 3, 2, 4), (4, 1, 3, 2), (3, 2, 5, 1)]
)


@pytest.mark.parametrize("kind", KINDS)
@SIZES
def test_predictions_are_the_formula_in_plain_loops(kind, d, outputs, count, experts):
    case = problem(kind, count=count, d=d, outputs=outputs, experts=experts, n=6)
    theta = torch.cat([case.theta, case.elsewhere(1.0, 2)])
    x = torch.cat([case.data.x[:1], case.data.x[:1].flip(2), 2 * case.data.x[:1]])
    found = case.truth.predict(theta, x)
    assert found.shape == (3, outputs, 6) and found.dtype == torch.float64
    for one, inputs, values in zip(theta, x, found, strict=True):
        assert (values - plain_predict(case.truth, one, inputs)).abs().max() <= 1e-12 * max(1, values.abs().max())
    shared = case.truth.predict(theta, x[:1])  # one set of inputs for all parameters
    for one, values in zip(theta, shared, strict=True):
        torch.testing.assert_close(values, plain_predict(case.truth, one, x[0]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("hidden", [1, 2, 3])
@pytest.mark.parametrize("kind", ["linear", "nonlinear", "nonlinear-gelu", "nonlinear-relu"])
def test_predictions_are_the_formula_for_every_width_of_the_bottleneck(kind, hidden):
    case = problem(kind, d=3, n=5, hidden=hidden)
    theta = case.elsewhere(1.0, 1)
    assert case.truth.parameters == {"linear": 2 + 6 * hidden}.get(kind, 2 + 9 * hidden)
    torch.testing.assert_close(
        case.truth.predict(theta, case.data.x[:1])[0],
        plain_predict(case.truth, theta[0], case.data.x[0]),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_experts_merged_into_one_are_the_softmax_over_all_experts(kind):
    """Gates of the merged content are the sum of its gates among all N₀ + L, outputs are unchanged."""
    case = problem(kind, count=3, experts=4, n=7)
    theta, x = case.elsewhere(1.0, 1), case.data.x[:1]
    scores, outputs = (
        torch.tensor(piece, dtype=torch.float64)
        for piece in zip(*(pieces(case.truth, theta[0], one) for one in x[0].T.tolist()), strict=True)
    )  # (n, N₀ + L), (n, N₀ + L, E)
    gates = torch.softmax(scores, 1)
    assert (gates.sum(1) - 1).abs().max() <= 1e-12
    explicit = (gates.unsqueeze(2) * outputs).sum(1).T
    assert (case.truth.predict(theta, x)[0] - explicit).abs().max() <= 1e-12
    lse, content = case.truth.known.content(x)
    prompts, _ = case.truth.prompts.experts(*case.truth.prompts.predictors(theta, x), x)
    merged = torch.softmax(torch.cat([lse.unsqueeze(1), prompts], 1), 1)[0]
    assert (merged[0] - gates[:, :4].sum(1)).abs().max() <= 1e-12
    assert (merged[1:] - gates[:, 4:].T).abs().max() <= 1e-12
    alone = (gates[:, :4, None] * outputs[:, :4]).sum(1) / gates[:, :4].sum(1, keepdim=True)
    assert (content[0].T - alone).abs().max() <= 1e-12


def test_very_large_scores_do_not_overflow():
    """exp(900) is no float64; the ratio is."""
    case = problem("untied", count=2, n=5)
    theta = case.theta.clone()
    theta[:, 0] = 900.0
    found = case.truth.predict(theta, case.data.x[:1])
    value = case.truth.atoms(theta).blocks["value"][:, 0]
    torch.testing.assert_close(found, value.unsqueeze(2).expand_as(found), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_atoms_means_nothing(kind):
    case = problem(kind, count=3)
    theta, x = case.elsewhere(1.0), case.data.x
    turned = permuted(case.truth, theta, [2, 0, 1])
    assert (turned - theta).abs().max() > 0.1
    assert (case.truth.predict(turned, x) - case.truth.predict(theta, x)).abs().max() <= 1e-14


def test_an_odd_activation_hides_the_sign_of_a_unit_and_no_other():
    for kind, hidden in (("nonlinear", True), ("nonlinear-gelu", False)):
        case = problem(kind)
        turned = case.truth.prompts.blocks(case.theta)
        turned = torch.cat([turned["log_mass"].flatten(1), -turned["weight"].flatten(1), -turned["out"].flatten(1)], 1)
        changed = case.truth.predict(turned, case.data.x) - case.truth.predict(case.theta, case.data.x)
        assert (changed.abs().max() <= 1e-14) == hidden and (hidden or changed.abs().max() > 1e-2)


# --- T9: one atom in two halves --------------------------------------------------------------------------------------


def halves(kind: str, step: float, along: dict[str, torch.Tensor], seed: int = 0):
    """Predictions with the first of two atoms as it is, and split into halves at ± ``step``; (E, n) each."""
    case = problem(kind, count=2, extra=1, n=30, seed=seed)
    atoms, place = case.truth.atoms(case.theta), [0, 0, 1]
    log_mass = atoms.log_mass[:, place] - math.log(2) * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    blocks = {k: block[:, place].clone() for k, block in atoms.blocks.items()}
    for k, u in along.items():
        blocks[k][0, 0] += step * u
        blocks[k][0, 1] -= step * u
    split = case.student.pack(Atoms(log_mass, blocks))
    x = case.data.x[:1]
    return case.truth.predict(case.theta, x)[0], case.student.predict(split, x)[0]


@pytest.mark.parametrize("kind", ["untied", "norga", "norga-other"])
@pytest.mark.parametrize("step", [1e-6, 1e-2, 1.0, 100.0])
def test_T9_halves_of_an_untied_prompt_are_the_prompt_whatever_the_step(kind, step):
    one, two = halves(kind, step, {"value": torch.tensor([0.6, -0.8], dtype=torch.float64)})
    assert (two - one).abs().max() <= 1e-12 * max(1.0, step)


ALONG = {
    "tied": {"prompt": (3,)},
    "untied": {"key": (3,)},
    "norga": {"key": (3,)},
    "linear": {"weight": (2, 3)},
    "nonlinear": {"weight": (2, 3)},
}


@pytest.mark.parametrize("kind", ALONG)
def test_T9_a_split_that_moves_the_score_changes_the_function_at_order_2(kind):
    normal = normal_draws(3)
    along = {k: normal(*shape) for k, shape in ALONG[kind].items()}
    steps = np.array([1e-3, 2e-3, 4e-3, 8e-3])
    sizes = []
    for step in steps:
        one, two = halves(kind, step, along)
        sizes.append((two - one).norm().item())
    order = np.polyfit(np.log(steps), np.log(sizes), 1)[0]
    assert abs(order - 2) <= 0.05 and sizes[0] > 1e-9


def test_linear_prompts_of_rank_two_can_be_split_in_a_direction_that_nothing_sees():
    """Δ = R (K U)ᵀ with R antisymmetric leaves the score alone, and the expert is linear in the weight."""
    known = frozen(3, 2, 3, 2, seed=0)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    along = {"weight": turn @ (known.key @ known.out).T}
    one, two = halves("linear", 5.0, along)
    assert (two - one).abs().max() <= 1e-12
    one, two = halves("nonlinear", 5.0, along)
    assert (two - one).abs().max() > 1e-3


def test_the_order_2_of_a_tied_split_is_the_symbolic_one():
    """c_VPT of the derivation, by the numbers of this model, against half the second difference of predictions."""
    case = problem("tied", count=2, n=30)
    value = symbolic.prove("tied_split").function("c_VPT")
    u, known = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64), case.truth.known
    prompt = case.truth.atoms(case.theta).blocks["prompt"][0, 0]
    one, two = halves("tied", 1e-4, {"prompt": u})
    for i, x in enumerate(case.data.x[0].T[:5]):
        scores, outputs = pieces(case.truth, case.theta[0], x.tolist())
        mass = case.theta[0, 0].item()
        others = [j for j in range(len(scores)) if j != 3]  # 3 frozen experts before the atom that is split
        for e in range(2):
            given = {
                "s": np.array([scores[j] for j in others]), "f": np.array([outputs[j][e] for j in others]), "L": 4,
                "m": math.exp(mass), "s_0": scores[3] - mass, "s_1": float(known.key @ u @ x),
                "e_0": float(known.value[e] @ prompt), "e_1": float(known.value[e] @ u),
            }  # fmt: skip
            assert float((two - one)[e, i]) / 1e-8 == pytest.approx(value(**given), rel=2e-5, abs=1e-6)


# --- samples, teachers and errors of functions ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("d", "outputs", "count"), [(4, 3, 2), (8, 3, 2), (16, 2, 4), (3, 2, 7)])
def test_teachers_give_prompts_about_half_of_the_mass(kind, d, outputs, count):
    shares = []
    for seed in range(4):
        truth = model(KINDS[kind][0], frozen(d, outputs, seed=seed), count, **KINDS[kind][2])
        theta = teacher(truth, seed)
        x = sample(truth, theta, 1000, 1, 0).x
        lse, _ = truth.known.content(x)
        scores, _ = truth.prompts.experts(*truth.prompts.predictors(theta, x), x)
        gates = torch.softmax(torch.cat([lse.unsqueeze(1), scores], 1), 1)[:, 1:]
        shares.append(gates.sum(1).mean().item())
        assert gates.mean((0, 2)).min() > 0.1 / count  # no atom goes unseen
        assert gates.sum(1).std() > 0.05  # and the gates do depend on the input
        assert abs(theta[0, :count].logsumexp(0) - truth.known.offset.logsumexp(0)) < 0.7  # equal masses at x = 0
    low, high = min(shares), max(shares)
    assert 0.4 < np.mean(shares) < (0.8 if "norga" in kind else 0.72) and 0.3 < low and high < 0.85, shares


@pytest.mark.parametrize("name", NAMES)
def test_teachers_lie_in_the_box_and_their_atoms_apart(name):
    for seed in range(5):
        truth = model(name, frozen(8, 3, seed=seed), 3)
        theta = teacher(truth, seed)
        low, high = BOX.bounds(truth)
        assert theta.shape == (1, truth.parameters) and ((low < theta) & (theta < high)).all()
        atoms = truth.atoms(theta).blocks
        first = next(atoms[k] for k in ("prompt", "key", "weight") if k in atoms).flatten(2)[0]
        assert torch.pdist(first).min() > 0.7


@pytest.mark.parametrize("inputs", ["gaussian", "uniform"])
def test_samples_are_the_model_with_its_noise(inputs):
    case = problem("tied", d=3, outputs=2)
    data = sample(case.truth, case.theta, 20_000, 2, seed=7, noise=0.3, inputs=inputs)
    error = data.y - case.truth.predict(case.theta, data.x)
    assert abs(error.std() - 0.3) < 0.006 and error.mean().abs() < 0.01
    assert abs((error[0, 0] * error[0, 1]).mean()) < 0.005 and abs((error[0] * data.x[0, :1]).mean()) < 0.01
    assert (data.x.mean((0, 2)).abs() < 0.03).all() and (data.x.var((0, 2)) - 1).abs().max() < 0.03
    fourth = (data.x**4).mean()  # 3 of N(0, 1), 9/5 of the box
    assert abs(fourth - {"gaussian": 3.0, "uniform": 1.8}[inputs]) < 0.1
    assert (data.x.abs().max() <= math.sqrt(3)) == (inputs == "uniform")
    lse, content = case.truth.known.content(data.x)
    assert torch.allclose(data.lse, lse, rtol=1e-12) and torch.allclose(data.content, content, rtol=1e-12, atol=1e-13)
    still = sample(case.truth, case.theta, 50, 1, seed=7, noise=0.0, inputs=inputs)
    assert (still.y - case.truth.predict(case.theta, still.x)).abs().max() <= 1e-14
    assert all(t.dtype == torch.float64 and t.is_contiguous() for t in data.tensors)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_give_equal_bytes_with_one_and_two_threads(name):
    known = frozen(4, 3, seed=3)
    truth = model(name, known, 2)

    def made(seed: int) -> list[bytes]:
        theta = teacher(truth, seed)
        data = sample(truth, theta, 9000, 1, seed)  # 36,000 numbers: enough for torch to share them out
        return [t.numpy().tobytes() for t in (theta, *data.tensors)]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = made(11)
        torch.set_num_threads(2)
        two = made(11)
    finally:
        torch.set_num_threads(before)
    assert one == two
    assert all(a != b for a, b in zip(one, made(12), strict=True))


def test_the_first_replicates_of_a_larger_draw_are_those_of_a_smaller_one():
    case = problem("nonlinear")
    few, many = (sample(case.truth, case.theta, 30, r, seed=4) for r in (2, 5))
    for a, b in zip(few.tensors, many.tensors, strict=True):
        assert torch.equal(a, b[:2])
    assert len({one.numpy().tobytes() for one in many.x}) == 5
    assert hash_seed(1, 2) != hash_seed(2, 1) and hash_seed(0, 5) != hash_seed(5)
    shorter = many.first(7)
    assert shorter.n == 7 and len(shorter) == 5 and torch.equal(shorter.y, many.y[..., :7])
    assert all(t.is_contiguous() for t in shorter.tensors)
    chosen = many.of(torch.tensor([4, 0]))
    assert torch.equal(chosen.x, many.x[[4, 0]]) and torch.equal(chosen.lse, many.lse[[4, 0]])


def test_function_error_is_the_root_of_the_mean_square_with_its_spread():
    case = problem("untied", extra=1, replicates=1)
    theta = case.elsewhere(0.5, 3)
    fresh = sample(case.truth, case.theta, 4000, 1, seed=9, noise=5.0)  # noise plays no part
    found = function_error(case.student, theta, case.truth, case.theta, fresh)
    true = case.truth.predict(case.theta, fresh.x)
    squares = torch.stack([(case.student.predict(one[None], fresh.x) - true).square().sum(1)[0] for one in theta])
    torch.testing.assert_close(found[:, 0], squares.mean(1).sqrt(), rtol=1e-12, atol=0)
    # The spread that is reported, against that of many sets of fresh inputs.
    many = [
        function_error(case.student, theta, case.truth, case.theta, sample(case.truth, case.theta, 500, 1, 100 + i))
        for i in range(200)
    ]
    reported, seen = torch.stack(many)[:, :, 1].mean(0), torch.stack(many)[:, :, 0].std(0)
    assert (reported / seen - 1).abs().max() < 0.2  # a deviation of 200 numbers is known to 5 %
    same = function_error(case.truth, case.theta, case.truth, case.theta, fresh)
    assert same[0, 0] == 0 and torch.isfinite(same).all()


def test_what_cannot_be_drawn_is_refused():
    case = problem("tied")
    for n, replicates, noise in ((0, 1, 0.1), (10, 0, 0.1), (10, 1, -0.1), (10, 1, math.nan)):
        with pytest.raises(ValueError, match="expected n, replicates ≥ 1 and noise ≥ 0"):
            sample(case.truth, case.theta, n, replicates, 0, noise)
    with pytest.raises(ValueError, match="inputs are 'gauss'; expected one of gaussian, uniform"):
        sample(case.truth, case.theta, 10, 1, 0, inputs="gauss")
    with pytest.raises(ValueError, match="unknown family of prompt experts 'teid'; did you mean 'tied'"):
        model("teid", case.truth.known, 1)
    with pytest.raises(ValueError, match="unknown activation 'tan'; did you mean 'tanh'"):
        model("nonlinear", case.truth.known, 1, activation_name="tan")
    with pytest.raises(ValueError, match="0 prompt experts asked for; expected at least 1"):
        model("tied", case.truth.known, 0)


def test_a_sample_knows_its_size():
    data = problem("tied", n=12, replicates=3).data
    assert isinstance(data, Sample) and data.n == 12 and len(data) == 3
