"""The softmax-contaminated mixture and its maximum likelihood: definition, derivatives, certificates, efficiency."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats

from vpt_analysis.theory import contaminated, likelihood
from vpt_analysis.theory.contaminated import FAMILIES, Frozen, Prompt, derivatives, log_density, sample, scores
from vpt_analysis.theory.likelihood import fit, information

F64 = torch.float64


def frozen_expert(family: str = "laplace", d: int = 2, variance: float = 0.05) -> Frozen:
    return Frozen(family, torch.eye(d, dtype=F64)[0], variance)


def prompt(beta, tau, eta, nu) -> Prompt:
    numbers = torch.tensor(beta, dtype=F64), torch.tensor(tau, dtype=F64), torch.tensor(eta, dtype=F64)
    return Prompt(*numbers, torch.tensor(math.log(nu), dtype=F64))


TRUTH = prompt([0.6, -0.4], 0.5, [0.2, 1.0], 0.1)


def repeated(truth: Prompt, times: int) -> Prompt:
    return Prompt.of(truth.vector.repeat(times, 1))


@pytest.fixture(scope="module")
def problems():
    """Six samples of 400 points with a start beside the truth."""
    frozen = frozen_expert()
    x, y = sample(TRUTH, frozen, 400, range(6))
    moved = 0.1 * torch.randn(6, 6, dtype=F64, generator=torch.Generator().manual_seed(0))
    return Prompt.of(TRUTH.vector + moved), frozen, x, y


# --- the model ------------------------------------------------------------------------------------------------------


def plain_density(p: Prompt, frozen: Frozen, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """p(y | x) written with scipy's distributions."""
    gate = 1 / (1 + np.exp(-(x @ p.beta.numpy() + p.tau.item())))
    centre = np.tanh(x @ frozen.eta.numpy())
    if frozen.family == "laplace":
        other = stats.laplace(centre, math.sqrt(frozen.variance / 2)).pdf(y)
    else:
        other = stats.norm(centre, math.sqrt(frozen.variance)).pdf(y)
    return (1 - gate) * other + gate * stats.norm(np.tanh(x @ p.eta.numpy()), math.exp(p.log_nu / 2)).pdf(y)


@pytest.mark.parametrize("family", FAMILIES)
def test_density_is_the_definition_and_integrates_to_1(family):
    frozen = frozen_expert(family)
    x, y = sample(TRUTH, frozen, 50, [0])
    found = log_density(TRUTH, frozen, x, y)[0].exp().numpy()
    np.testing.assert_allclose(found, plain_density(TRUTH, frozen, x[0].numpy(), y[0].numpy()), rtol=1e-12)
    for point in x[0, :3].numpy():
        edges = [float(np.tanh(point @ frozen.eta.numpy()))]
        total, _ = integrate.quad(lambda v, p=point: plain_density(TRUTH, frozen, p, v), -6, 6, points=edges, limit=200)
        assert total == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_noise_has_the_variance_that_is_said(family):
    frozen = frozen_expert(family, variance=0.3)
    silent = prompt([0.0, 0.0], -800.0, [0.0, 0.0], 1.0)  # the gate is shut
    x, y = sample(silent, frozen, 200_000, [1])
    residual = (y - torch.tanh(x @ frozen.eta))[0]
    assert residual.var().item() == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_follow_the_density(family):
    """The distribution function at each y is uniform; with noise of another width it is not."""
    frozen = frozen_expert(family)
    x, y = (a[0].numpy() for a in sample(TRUTH, frozen, 4000, [3]))
    gate = 1 / (1 + np.exp(-(x @ TRUTH.beta.numpy() + TRUTH.tau.item())))
    kind = stats.laplace if family == "laplace" else stats.norm

    def p_value(variance: float) -> float:
        other = kind(np.tanh(x[:, 0]), math.sqrt(variance / 2 if family == "laplace" else variance)).cdf(y)
        own = stats.norm(np.tanh(x @ TRUTH.eta.numpy()), math.exp(TRUTH.log_nu / 2)).cdf(y)
        return stats.kstest((1 - gate) * other + gate * own, "uniform").pvalue

    assert p_value(frozen.variance) > 0.01 > p_value(8 * frozen.variance)


def test_a_replicate_depends_on_its_own_seed_alone():
    frozen = frozen_expert()
    together, apart = sample(TRUTH, frozen, 20, [4, [5, 20]]), sample(TRUTH, frozen, 20, [[5, 20]])
    assert all(torch.equal(a[1], b[0]) for a, b in zip(together, apart, strict=True))
    assert not torch.equal(together[0][0], together[0][1])


# --- derivatives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("d", [1, 3])
def test_derivatives_agree_with_autodiff(family, d):
    generator = torch.Generator().manual_seed(d)
    frozen = frozen_expert(family, d)
    vectors = torch.randn(2, 2 * d + 2, dtype=F64, generator=generator)
    x, y = (torch.randn(*shape, dtype=F64, generator=generator) for shape in ((2, 40, d), (2, 40)))
    found = derivatives(Prompt.of(vectors), frozen, x, y)
    for r in range(2):

        def total(vector, r=r):
            return log_density(Prompt.of(vector), frozen, x[r], y[r]).sum()

        torch.testing.assert_close(found.value[r], total(vectors[r]), rtol=1e-13, atol=0)
        for got, want in (
            (found.gradient[r], torch.func.grad(total)(vectors[r])),
            (found.hessian[r], torch.func.hessian(total)(vectors[r])),
        ):
            torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12 * want.abs().max().item())


def test_scores_are_the_terms_of_the_gradient_and_vanish_on_average():
    frozen = frozen_expert()
    x, y = sample(TRUTH, frozen, 40_000, [0])
    rows = scores(TRUTH, frozen, x[0], y[0])
    torch.testing.assert_close(rows.sum(0), derivatives(repeated(TRUTH, 1), frozen, x, y).gradient[0])
    assert (rows.mean(0).abs() < 4 * rows.std(0) / 200).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tau", [-700.0, 700.0])
def test_all_is_finite_where_one_part_has_no_mass(family, tau):
    frozen = frozen_expert(family)
    far = repeated(prompt([0.5, 0.5], tau, [1.0, 1.0], 1e-6), 1)
    x, y = torch.ones(1, 2, 2, dtype=F64), torch.tensor([[0.5, 60.0]], dtype=F64)
    found = derivatives(far, frozen, x, y)
    assert all(part.isfinite().all() for part in vars(found).values())
    torch.testing.assert_close(found.value, log_density(far, frozen, x, y).sum(-1))


# --- the estimator --------------------------------------------------------------------------------------------------


def test_likelihood_rises_step_by_step(problems):
    start, frozen, x, y = problems
    values = torch.stack([fit(start, frozen, x, y, iterations=k).log_likelihood for k in range(12)])
    torch.testing.assert_close(values[0], log_density(start, frozen, x, y).sum(-1))
    assert (values.diff(dim=0) >= -1e-10).all() and (values[-1] > values[0] + 1).all()
    torch.testing.assert_close(values[-1], fit(start, frozen, x, y).check().log_likelihood, rtol=1e-13, atol=0)


def test_agrees_with_scipy(problems):
    start, frozen, x, y = problems
    found = fit(start, frozen, x, y).check()
    for r in range(len(x)):

        def loss(vector, r=r):
            sums = derivatives(Prompt.of(torch.from_numpy(vector)[None]), frozen, x[r : r + 1], y[r : r + 1])
            return -sums.value.item(), -sums.gradient[0].numpy()

        for method, options in (("BFGS", {"gtol": 1e-6}), ("L-BFGS-B", {"ftol": 1e-15, "gtol": 1e-7})):
            theirs = optimize.minimize(loss, start.vector[r].numpy(), jac=True, method=method, options=options)
            assert -theirs.fun == pytest.approx(found.log_likelihood[r].item(), rel=1e-8)
            assert -theirs.fun <= found.log_likelihood[r].item() + 1e-9
            np.testing.assert_allclose(theirs.x, found.prompt.vector[r].numpy(), atol=1e-4)


def test_a_step_of_em_by_hand_rests_at_the_fit_and_climbs_beside_it():
    """Another road to the same point: posterior q, then each part fitted to its share by one-dimensional searches."""
    frozen = frozen_expert(d=1)
    truth = prompt([0.8], 0.3, [-1.0], 0.05)
    x, y = sample(truth, frozen, 25, [2])
    found = fit(repeated(truth, 1), frozen, x, y).check()

    def em_step(vector: np.ndarray) -> np.ndarray:
        beta, tau, eta, log_nu = vector
        u, v = x[0, :, 0].numpy(), y[0].numpy()
        gate = 1 / (1 + np.exp(-(beta * u + tau)))
        own = gate * stats.norm(np.tanh(eta * u), math.exp(log_nu / 2)).pdf(v)
        other = (1 - gate) * stats.laplace(np.tanh(u), math.sqrt(frozen.variance / 2)).pdf(v)
        q = own / (own + other)

        def logistic(b):
            score = b[0] * u + b[1]
            return np.logaddexp(0, score).sum() - q @ score, np.array(
                [(1 / (1 + np.exp(-score)) - q) @ u, (1 / (1 + np.exp(-score)) - q).sum()]
            )

        gate_fit = optimize.minimize(logistic, [0.0, 0.0], jac=True, options={"gtol": 1e-10}).x
        squares = optimize.minimize_scalar(
            lambda e: q @ (v - np.tanh(e * u)) ** 2, bracket=(eta - 0.1, eta + 0.1), options={"xtol": 1e-12}
        )
        return np.array([*gate_fit, squares.x, math.log(squares.fun / q.sum())])

    at_fit = found.prompt.vector[0].numpy()
    np.testing.assert_allclose(em_step(at_fit), at_fit, atol=1e-6)
    beside = at_fit + np.array([0.2, -0.1, 0.1, 0.2])
    path = [beside, em_step(beside), em_step(em_step(beside))]
    values = [log_density(Prompt.of(torch.from_numpy(p)), frozen, x[0], y[0]).sum().item() for p in path]
    assert values[0] < values[1] < values[2] < found.log_likelihood.item()


def test_errors_are_as_small_as_the_information_allows():
    """n = 1500, 400 replicates: √n (θ̂ − θ) has the covariance I⁻¹. The mean of 6 whitened variances has a standard
    error of 2 %; eigenvalues of 400 white vectors of 6 lie between 0.77 and 1.26 (Marchenko-Pastur)."""
    frozen, n = frozen_expert(), 1500
    x, y = sample(TRUTH, frozen, n, range(400))
    found = fit(repeated(TRUTH, 400), frozen, x, y).check()
    expected = information(TRUTH, frozen, 400_000, seed=0)
    white = math.sqrt(n) * (found.prompt.vector - TRUTH.vector) @ torch.linalg.cholesky(expected)
    eigenvalues = torch.linalg.eigvalsh(white.T @ white / 400)
    assert eigenvalues.mean().item() == pytest.approx(1, abs=0.08)
    assert 0.7 < eigenvalues[0] and eigenvalues[-1] < 1.4
    halves = math.sqrt(n / 2) * (found.prompt.vector - TRUTH.vector) @ torch.linalg.cholesky(expected)
    assert not abs((halves.T @ halves / 400).trace().item() / 6 - 1) < 0.08  # another n would be seen


@pytest.mark.parametrize("family", FAMILIES)
def test_rotated_inputs_rotate_the_estimate_and_mirrored_outputs_mirror_it(family):
    frozen = frozen_expert(family)
    x, y = sample(TRUTH, frozen, 600, [0, 1])
    found = fit(repeated(TRUTH, 2), frozen, x, y).check().prompt
    turn = torch.linalg.qr(torch.randn(2, 2, dtype=F64, generator=torch.Generator().manual_seed(0)))[0]
    start = Prompt(TRUTH.beta @ turn, TRUTH.tau, TRUTH.eta @ turn, TRUTH.log_nu)
    turned = fit(repeated(start, 2), Frozen(family, frozen.eta @ turn, frozen.variance), x @ turn, y).check().prompt
    torch.testing.assert_close(turned.beta, found.beta @ turn, rtol=0, atol=1e-7)
    torch.testing.assert_close(turned.eta, found.eta @ turn, rtol=0, atol=1e-7)
    start = Prompt(TRUTH.beta, TRUTH.tau, -TRUTH.eta, TRUTH.log_nu)
    mirrored = fit(repeated(start, 2), Frozen(family, -frozen.eta, frozen.variance), x, -y).check().prompt
    torch.testing.assert_close(mirrored.eta, -found.eta, rtol=0, atol=1e-7)
    torch.testing.assert_close(mirrored.beta, found.beta, rtol=0, atol=1e-7)


def test_each_problem_is_what_it_is_alone_and_stops_by_itself(problems):
    start, frozen, x, y = problems
    exact = fit(start, frozen, x, y).check()
    mixed = start.vector.clone()
    mixed[0] = exact.prompt.vector[0]
    found = fit(Prompt.of(mixed), frozen, x, y).check()
    assert found.iterations[0] == 0 and (found.iterations[1:] >= 3).all()
    for r in range(len(x)):
        alone = fit(Prompt.of(mixed[r : r + 1]), frozen, x[r : r + 1], y[r : r + 1])
        torch.testing.assert_close(alone.prompt.vector[0], found.prompt.vector[r], rtol=1e-9, atol=1e-9)


def test_memory_does_not_grow_with_n_and_chunks_change_nothing(problems, monkeypatch):
    start, frozen, x, y = problems
    whole = fit(start, frozen, x, y)
    seen = []
    monkeypatch.setattr(likelihood, "derivatives", lambda p, f, a, b: seen.append(b.numel()) or derivatives(p, f, a, b))
    monkeypatch.setattr(likelihood, "POINTS", 300)
    found = fit(start, frozen, x, y)
    assert max(seen) <= 300 and len(seen) > 8
    torch.testing.assert_close(found.prompt.vector, whole.prompt.vector, rtol=1e-10, atol=1e-10)
    few = max(seen)
    fit(start, frozen, torch.cat([x] * 3, 1), torch.cat([y] * 3, 1))
    assert max(seen) == few


@pytest.mark.parametrize("replicates", [1, 3])
def test_same_bytes_with_1_and_2_threads(replicates):
    frozen, before = frozen_expert(d=4), torch.get_num_threads()
    truth = prompt([0.3, 0.2, 0.1, 0.0], 0.2, [0.0, 1.0, 0.0, 0.0], 0.1)
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            x, y = sample(truth, frozen, 9_000, range(replicates))
            one = fit(repeated(truth, replicates), frozen, x, y).check()
            found.append([one.prompt.vector, one.log_likelihood, *vars(one.certificate).values(), x, y])
            found[-1].append(information(truth, frozen, 20_000, seed=1))
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


# --- certificates that must fail --------------------------------------------------------------------------------------


def test_a_fit_stopped_early_is_not_certified(problems):
    start, frozen, x, y = problems
    early = fit(start, frozen, x, y, iterations=1)
    assert not early.converged.any() and (early.certificate.step > 1e-6).all()
    with pytest.raises(RuntimeError, match="6 of 6 fits have not converged.*allow more iterations"):
        early.check()
    assert fit(start, frozen, x, y).converged.all()


def test_a_saddle_is_not_certified():
    """Prompt and frozen expert are equal, and symmetric outputs pull it to no side: the gradient is 0, the curvature
    is not positive."""
    frozen = Frozen("gaussian", torch.zeros(1, dtype=F64), 0.25)
    x = torch.tensor([[[-1.0], [1.0], [-1.0], [1.0]]], dtype=F64)
    y = torch.tensor([[0.5, 0.5, -0.5, -0.5]], dtype=F64)
    saddle = repeated(prompt([0.0], 0.0, [0.0], 0.25), 1)
    found = fit(saddle, frozen, x, y)
    assert found.certificate.gradient.item() <= 1e-12 and found.certificate.curvature.item() <= 1e-12
    assert not found.converged.any() and math.isinf(found.certificate.distance.item())


def test_a_fit_that_runs_off_is_not_certified():
    """The sign of x says which part made a point: β has no finite estimate."""
    frozen = frozen_expert("gaussian", 1, 0.01)
    x, y = sample(prompt([60.0], 0.0, [-1.0], 0.01), frozen, 60, [0])
    x, y = x[:, x[0, :, 0].abs() > 0.5], y[:, x[0, :, 0].abs() > 0.5]
    found = fit(repeated(prompt([2.0], 0.0, [-1.0], 0.01), 1), frozen, x, y, iterations=60)
    assert found.prompt.beta.item() > 15 and not found.converged.any()
    assert found.certificate.step.item() > 1e-3


def test_curvature_and_distance_are_those_of_the_information(problems):
    start, frozen, x, y = problems
    sums = derivatives(start, frozen, x, y)
    found = likelihood.certificate(start.vector, sums)
    for r in range(len(x)):
        matrix, gradient = -sums.hessian[r], sums.gradient[r]
        scale = matrix.diagonal().abs().sqrt()
        smallest = torch.linalg.eigvalsh(matrix / scale / scale[:, None])[0]
        torch.testing.assert_close(found.curvature[r], smallest)
        torch.testing.assert_close(found.gradient[r], (gradient / scale).abs().max())
        step = torch.linalg.solve(matrix, gradient)
        want = (gradient @ step).sqrt() if smallest > 0 else torch.tensor(math.inf, dtype=F64)
        torch.testing.assert_close(found.distance[r], want)
        if smallest > 0:
            torch.testing.assert_close(found.step[r], (step / (1 + start.vector[r].abs())).abs().max())


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_bad_models_are_refused():
    axis = torch.eye(2, dtype=F64)[0]
    with pytest.raises(ValueError, match="unknown family of the frozen expert 'laplac'; did you mean 'laplace'"):
        Frozen("laplac", axis, 1.0)
    with pytest.raises(ValueError, match=r"float64 \(d,\)"):
        Frozen("laplace", axis.float(), 1.0)
    with pytest.raises(ValueError, match="variance is -1.0; expected a positive"):
        Frozen("gaussian", axis, -1.0)
    with pytest.raises(ValueError, match=r"expected \(..., d\) for beta and eta"):
        Prompt(axis, torch.tensor(1.0, dtype=F64), torch.ones(3, dtype=F64), torch.tensor(0.0, dtype=F64))
    with pytest.raises(ValueError, match="expected float64"):
        Prompt.of(torch.zeros(6))
    with pytest.raises(ValueError, match=r"a vector of 5 numbers; expected 2 d \+ 2"):
        Prompt.of(torch.zeros(5, dtype=F64))
    with pytest.raises(ValueError, match="0 points.*expected at least 1"):
        sample(TRUTH, frozen_expert(), 0, [0])
    with pytest.raises(ValueError, match="of one truth"):
        sample(repeated(TRUTH, 2), frozen_expert(), 5, [0])


def test_bad_problems_are_refused(problems):
    start, frozen, x, y = problems
    with pytest.raises(ValueError, match=r"expected \(R, n, d\) and \(R, n\)"):
        fit(start, frozen, x, y[:, 1:])
    with pytest.raises(ValueError, match="expected float64: likelihoods"):
        fit(start, frozen, x.float(), y)
    with pytest.raises(ValueError, match=r"expected \(5, 2\) and 2, as the data have"):
        fit(start, frozen, x[1:], y[1:])
    with pytest.raises(ValueError, match="dimension 3"):
        fit(start, frozen_expert(d=3), x, y)
    with pytest.raises(ValueError, match="5 points for 6 parameters"):
        fit(start, frozen, x[:, :5], y[:, :5])
    broken = y.clone()
    broken[0, 0] = math.nan
    with pytest.raises(ValueError, match="not finite; leave them out"):
        fit(start, frozen, x, broken)
    vector = start.vector.clone()
    vector[2, -1] = -900.0
    with pytest.raises(ValueError, match=r"start of problems \[2\] is not finite; start nearer"):
        fit(Prompt.of(vector), frozen, x, y)


def test_errors_by_quantity():
    other = prompt([0.6, 2.6], -0.5, [0.2, 1.0], 0.3)
    found = {name: value.item() for name, value in other.errors(TRUTH).items()}
    assert found == pytest.approx({"beta": 3.0, "tau": 1.0, "eta": 0.0, "nu": 0.2})
    assert contaminated.Prompt.of(other.vector).errors(other) == {k: torch.zeros((), dtype=F64) for k in found}
