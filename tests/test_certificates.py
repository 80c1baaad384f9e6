"""Inputs that share a query: cases known by hand, certificates checked by other means, prompts made to order."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import linprog

from vpt_analysis.probes.certificates import Ball, Certificate, SharedQuery
from vpt_analysis.probes.constructions import before_norm, tied, untied
from vpt_analysis.probes.nearest import BallSolver, nearest, nearest_at


def random_problem(seed: int, n: int = 3, width: int = 4, ball: bool = False, d: int = 9) -> SharedQuery:
    rng = np.random.default_rng(seed)
    values = None
    if ball:
        matrix, score = rng.normal(size=(width, d)) * 0.5, rng.normal(size=d) * 0.4
        centred = [x - x.mean(-1, keepdims=True) for x in (matrix, score)]
        values = Ball(centred[0], rng.normal(size=width), centred[1], 0.3, d**0.5)
    return SharedQuery(rng.normal(size=(n, width)), rng.normal(size=n), rng.normal(size=(n, width)), values)


def random_prompts(ball: Ball, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Output and log-mass of 1 to 30 tokens anywhere in the ball."""
    z = rng.normal(size=(rng.integers(1, 31), len(ball.score)))
    z *= (ball.radius * rng.random(len(z)) ** 0.3 / np.linalg.norm(z, axis=1))[:, None]
    scores = z @ ball.score + ball.shift
    gates = np.exp(scores - np.logaddexp.reduce(scores))
    return gates @ (z @ ball.matrix.T + ball.offset), float(np.logaddexp.reduce(scores))


# ---- known by hand -------------------------------------------------------------------------------------------------


def test_one_prompt_of_equal_mass_is_found_again():
    """Content 0 and 1, masses 1 and 1, a prompt at 3 of mass 1: outputs 3/2 and 2."""
    found = nearest(SharedQuery([[0.0], [1.0]], [0.0, 0.0], [[1.5], [2.0]]))
    assert found.distance <= 1e-12 and found.certificate is None and found.bound == 0
    assert abs(found.output[0] - 3) <= 1e-9 and abs(found.log_mass) <= 1e-9


def test_outputs_that_shall_cross_are_behind_the_plane():
    """Content −1 and 1, targets 1 and −1. Prompts keep the order, so the best is to make both 0: √2 away."""
    problem = SharedQuery([[-1.0], [1.0]], [0.0, 0.0], [[1.0], [-1.0]])
    found = nearest(problem)
    assert abs(found.distance - 2**0.5) <= 1e-6
    assert 0.999 * 2**0.5 <= found.bound <= 2**0.5 + 1e-9


def test_one_input_and_free_values_reach_everything_a_ball_only_its_image():
    free = random_problem(0, n=1)
    assert nearest(free).distance <= 1e-12
    # Values in [−1, 1], one content output at 0, target 2: prompts of infinite mass at 1 come within 1.
    ball = Ball(np.array([[1.0, 0.0]]), np.zeros(1), np.array([0.0, 0.1]), 0.0, 1.0)
    found = nearest(SharedQuery([[0.0]], [0.0], [[2.0]], ball))
    assert abs(found.distance - 1) <= 1e-6 and 0.998 <= found.bound <= 1 + 1e-9


def test_an_additive_output_moves_all_inputs_alike():
    problem = SharedQuery([[0.0], [0.0]], [0.0, 5.0], [[1.0], [3.0]], additive=True)
    found = nearest(problem)
    assert abs(found.distance - 2**0.5) <= 1e-9 and abs(found.output[0] - 2) <= 1e-9
    assert abs(found.bound - 2**0.5) <= 1e-6


# ---- the certificate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_linear_programming_agrees_on_what_is_reachable(seed):
    """o − t E (y − c) = y is linear in (o, t ≥ 0): an independent solver finds it feasible or not."""
    problem = random_problem(seed)
    n, width = problem.target.shape
    reached = dataclasses.replace(problem, target=problem.outputs(problem.content[0] + 1, 0.5))
    for p, feasible in ((problem, False), (reached, True)):
        moved = np.exp(p.lse)[:, None] * (p.target - p.content)
        equal = np.concatenate([np.tile(np.eye(width), (n, 1)), -moved.reshape(-1, 1)], axis=1)
        bounds = [(None, None)] * width + [(0, None)]
        answer = linprog(np.zeros(width + 1), A_eq=equal, b_eq=p.target.ravel(), bounds=bounds, method="highs")
        assert (answer.status == 0) == feasible
        assert (nearest(p).bound > 0) != feasible


@pytest.mark.parametrize("seed", range(3))
def test_the_certificate_in_exact_arithmetic(seed):
    """With multipliers as fractions that sum to 0, A ≥ bound · D at both ends of every interval; written anew here."""
    problem = random_problem(seed, n=3, width=2)
    certificate = nearest(problem, gap=0.05).certificate
    bound = Fraction(certificate.bound(problem))
    assert bound > 0 and certificate.edges[0] == 0 and certificate.edges[-1] == 1
    y, c = ([[Fraction(v) for v in row] for row in a.tolist()] for a in (problem.target, problem.content))
    masses = [Fraction(m) for m in problem.masses.tolist()]
    for start, end, eta in zip(certificate.edges, certificate.edges[1:], certificate.eta, strict=False):
        eta = [[Fraction(v) for v in row] for row in eta.tolist()]
        eta[-1] = [-sum(column) for column in zip(*eta[:-1], strict=True)]
        for tau in (Fraction(start), Fraction(end)):
            height = size = Fraction(0)
            for a in range(3):
                scale = 1 - tau + tau * masses[a]
                for i in range(2):
                    aim = (1 - tau) * y[a][i] + tau * masses[a] * (y[a][i] - c[a][i])
                    height -= eta[a][i] * aim
                    size += (eta[a][i] * scale) ** 2
            assert height > 0 and height**2 >= bound**2 * size


@pytest.mark.parametrize("ball", [False, True])
def test_no_prompts_come_below_the_bound_and_some_come_near(ball):
    for seed in range(3):
        problem, rng = random_problem(seed, ball=ball), np.random.default_rng(seed)
        found = nearest(problem)
        assert (1 - 1.1e-3) * found.distance <= found.bound <= found.distance
        for _ in range(200):
            if ball:
                output, log_mass = random_prompts(problem.values, rng)
            else:
                near = rng.normal(size=4) * rng.choice([0.01, 1.0, 10.0])
                output, log_mass = found.output + near, found.log_mass + rng.normal()
            assert np.linalg.norm(problem.outputs(output, log_mass) - problem.target) >= found.bound
        attained = np.linalg.norm(problem.outputs(found.output, found.log_mass) - problem.target)
        assert abs(attained - found.distance) <= 1e-9


def test_prompts_in_a_ball_can_do_no_more_than_free_ones():
    for seed in range(4):
        problem = random_problem(seed, n=2, ball=True)
        assert nearest(problem).distance >= nearest(dataclasses.replace(problem, values=None)).bound


def test_a_tampered_certificate_proves_nothing_or_less():
    problem = random_problem(1)
    found = nearest(problem)
    edges, eta, mu = found.certificate.edges, found.certificate.eta, found.certificate.mu
    assert abs(Certificate(edges, 10 * eta, mu).bound(problem) - found.bound) <= 1e-9  # multipliers have no scale
    flipped = eta.copy()
    flipped[0] *= -1
    assert Certificate(edges, flipped, mu).bound(problem) == 0
    assert Certificate(edges[:-1], eta[:-1], mu[:-1]).bound(problem) == 0  # an interval left out
    assert Certificate(edges, eta, mu - 1).bound(problem) == 0
    assert Certificate(edges, np.full_like(eta, np.nan), mu).bound(problem) == 0
    with pytest.raises(ValueError, match="certificate with edges"):
        Certificate(edges, eta[:-1], mu).bound(problem)
    reached = dataclasses.replace(problem, target=problem.outputs(np.ones(4), 0.2))
    assert found.certificate.bound(reached) == 0  # nobody can prove what is false


def test_relabelled_inputs_change_nothing():
    problem = random_problem(2)
    order = [2, 0, 1]
    other = SharedQuery(problem.content[order], problem.lse[order], problem.target[order])
    one, two = nearest(problem, gap=1e-4), nearest(other, gap=1e-4)
    assert abs(one.distance - two.distance) <= 1e-9 and abs(one.bound - two.bound) <= 2e-4 * one.distance


def test_the_ball_solver_against_many_points_of_the_ball():
    rng = np.random.default_rng(0)
    for seed in range(5):
        ball = random_problem(seed, ball=True).values
        aim, limit = 3 * rng.normal(size=4), -0.5
        z = BallSolver(ball).solve(aim, limit)
        assert np.linalg.norm(z) <= ball.radius * (1 + 1e-9) and ball.score @ z <= limit + 1e-9
        points = rng.normal(size=(2000, 9)) * 0.3 + z
        points *= np.minimum(1, ball.radius / np.linalg.norm(points, axis=1))[:, None]
        points = points[points @ ball.score <= limit]
        assert len(points) > 50
        best = np.linalg.norm(points @ ball.matrix.T - aim, axis=1).min()
        assert np.linalg.norm(ball.matrix @ z - aim) <= best


# ---- constructions -------------------------------------------------------------------------------------------------


def test_untied_prompts_give_every_query_its_own():
    rng = np.random.default_rng(0)
    queries, outputs, log_mass = rng.normal(size=(3, 5)), rng.normal(size=(3, 5)), np.array([-3.0, 0.0, 20.0])
    key, value = untied(queries, outputs, log_mass)
    scores = queries @ key.T
    lse = np.logaddexp.reduce(scores, axis=1)
    assert key.shape == (3, 5) and abs(lse - log_mass).max() <= 1e-9
    assert abs(np.exp(scores - lse[:, None]) @ value - outputs).max() <= 1e-9
    with pytest.raises(ValueError, match="4 different queries of 3 dimensions are linearly dependent"):
        untied(rng.normal(size=(4, 3)), np.zeros((4, 3)), np.zeros(4))


@pytest.mark.parametrize("ratio", [1.0, 1.7, 2.0, 3.01, 12.5])
def test_tied_tokens_have_the_mean_and_the_mass(ratio):
    ball = random_problem(0, ball=True).values
    mean = 0.5 * np.random.default_rng(1).normal(size=9)
    mean -= mean.mean()
    want = ball.score @ mean + ball.shift + np.log(ratio)
    z = tied(ball, mean, want)
    scores = z @ ball.score + ball.shift
    lse = np.logaddexp.reduce(scores)
    assert len(z) == int(np.ceil(ratio)) and (np.linalg.norm(z, axis=1) < ball.radius).all()
    assert abs(lse - want) <= 1e-9 and abs(np.exp(scores - lse) @ z - mean).max() <= 1e-9


def test_tied_masses_that_do_not_exist_are_refused():
    ball = random_problem(0, ball=True).values
    with pytest.raises(ValueError, match="below .* the score of one prompt"):
        tied(ball, np.zeros(9), ball.shift - 0.1)
    with pytest.raises(ValueError, match="in a gap between one prompt and two"):
        tied(ball, np.zeros(9), ball.shift + 1e-3)
    with pytest.raises(ValueError, match="ε = 0"):
        before_norm(np.zeros((1, 3)), np.ones(3), np.zeros(3), 0.0)


def test_one_tau_by_hand():
    """Two masses of 1: weights are equal, so ω is the mean of f, and the multipliers sum to 0."""
    point = nearest_at(SharedQuery([[0.0], [0.0]], [0.0, 0.0], [[1.0], [3.0]]), 0.5)
    assert abs(point.omega[0] - 2) <= 1e-12 and abs(point.eta.sum()) <= 1e-12 and abs(point.distance - 2**0.5) <= 1e-12


def test_bad_problems_are_refused():
    with pytest.raises(ValueError, match="expected \\(n, D\\)"):
        SharedQuery(np.zeros(3), np.zeros(3), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="not finite"):
        SharedQuery([[np.inf]], [0.0], [[0.0]])
    with pytest.raises(ValueError, match="additive"):
        dataclasses.replace(random_problem(0, ball=True), additive=True)
    with pytest.raises(ValueError, match="0 < gap < 1"):
        nearest(random_problem(0), gap=2.0)
