"""Starts near the truth and at random, stages, and what an estimate says of its other starts."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.theory.mixtures import NAMES, problem
from vpt_analysis.theory import regression, starts
from vpt_analysis.theory.least_squares import BOX, Box, fit
from vpt_analysis.theory.regression import hash_seed, teacher


def own(model, theta: torch.Tensor) -> torch.Tensor:
    """What belongs to each atom alone, flat: (R, L, q)."""
    blocks = model.atoms(theta).blocks
    return torch.cat([b.flatten(2) for k, b in blocks.items() if k not in model.prompts.shared], 2)


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("extra", [0, 1, 3])
def test_starts_near_the_truth_give_its_atoms_copies_in_turn_and_keep_masses_and_function(family, extra):
    case = problem(family, extra=extra, d=3, n=20, replicates=5)
    start = starts.near(case.student, case.truth, case.theta, 5, seed=0, spread=0.0)
    assert start.shape == (5, case.student.parameters)
    atoms, true = own(case.student, start), own(case.truth, case.theta)[0]
    mass, true_mass = case.student.atoms(start).log_mass.exp(), case.theta[0, :2].exp()
    assert torch.equal(atoms[:, :2], true.expand(5, -1, -1))
    for replicate in range(5):
        place = [0, 1] + [(replicate + i) % 2 for i in range(extra)]
        assert torch.equal(atoms[replicate], true[place])
        for atom in range(2):
            copies = torch.tensor([p == atom for p in place])
            shares = mass[replicate, copies]
            torch.testing.assert_close(shares.sum(), true_mass[atom], rtol=1e-13, atol=0)
            torch.testing.assert_close(shares, shares[:1].expand_as(shares), rtol=1e-13, atol=0)
    x = case.data.x
    same = case.student.predict(start, x) - case.truth.predict(case.theta, x)
    assert same.abs().max() <= 1e-13


def test_starts_near_the_truth_are_moved_by_the_spread_independently():
    case = problem("untied", extra=1, d=3)
    still = starts.near(case.student, case.truth, case.theta, 400, seed=1, spread=0.0)
    moved = (starts.near(case.student, case.truth, case.theta, 400, seed=1, spread=0.2) - still) / 0.2
    assert moved.mean().abs() < 0.04 and (moved.std() - 1).abs() < 0.04
    assert (moved.std(0) - 1).abs().max() < 0.16 and moved.mean(0).abs().max() < 0.2
    again = starts.near(case.student, case.truth, case.theta, 400, seed=1, spread=0.2)
    other = starts.near(case.student, case.truth, case.theta, 400, seed=2, spread=0.2)
    assert torch.equal(again, still + 0.2 * moved) or (again - still - 0.2 * moved).abs().max() < 1e-14
    assert (again - other).abs().min() > 0


def test_starts_near_a_truth_of_another_family_or_with_more_atoms_are_refused():
    case, other = problem("tied", count=2), problem("untied", count=2)
    with pytest.raises(ValueError, match="no start near the truth for 2 untied atoms where the truth has 2 tied ones"):
        starts.near(other.truth, case.truth, case.theta, 1, 0)
    one = regression.model("tied", case.truth.known, 1)
    with pytest.raises(ValueError, match="1 tied atoms where the truth has 2 tied ones: same family and at least as"):
        starts.near(one, case.truth, case.theta, 1, 0)


@pytest.mark.parametrize("family", NAMES)
def test_random_starts_are_teachers_and_know_nothing_of_the_truth(family):
    case = problem(family, extra=1)
    few, many = (starts.at_random(case.student, count, seed=3) for count in (2, 5))
    assert torch.equal(few, many[:2]) and many.shape == (5, case.student.parameters)
    for i, one in enumerate(many):
        assert torch.equal(one[None], teacher(case.student, hash_seed(3, i)))
    assert torch.pdist(many).min() > 0.1
    assert torch.equal(starts.at_random(case.student, 2, seed=3), few)
    assert not torch.equal(starts.at_random(case.student, 2, seed=4), few)


@pytest.mark.parametrize(
    ("family", "extra"), [("tied", 0), ("untied", 0), ("nonlinear", 0), ("tied", 1), ("linear", 1)]
)
def test_stages_end_where_the_direct_fit_ends(family, extra, monkeypatch):
    monkeypatch.setattr(starts, "FEW", 40)
    case = problem(family, extra=extra, d=2, n=400, replicates=4, hidden=1)
    start = starts.near(case.student, case.truth, case.theta, 4, 0, spread=0.05).clamp(*BOX.bounds(case.student))
    by_stages, direct = starts.staged(case.student, case.data, start), fit(case.student, case.data, start)
    both = by_stages.certified & direct.certified
    same = (by_stages.cost / direct.cost - 1).abs() <= 1e-7
    assert same[both].any()  # with an atom too many the two ways may lead to different minima
    if extra == 0:
        assert both.all() and same.all()
        torch.testing.assert_close(by_stages.theta, direct.theta, rtol=0, atol=1e-3)


def test_small_samples_have_no_stages_and_large_ones_begin_with_enough(monkeypatch):
    case, few = problem("tied", n=60, replicates=1), starts.FEW
    ended, seen = fit(case.student, case.data, case.theta, passes=0), []

    def planted(model, data, start, *given, **options):
        seen.append(data.n)
        assert torch.equal(data.x, large.x[..., : data.n])
        return ended

    monkeypatch.setattr(starts, "fit", planted)
    for n, sizes in ((60, []), (10 * few - 1, []), (10 * few, [few]), (100 * few, [few, 10 * few])):
        large = regression.sample(case.truth, case.theta, n, 1, 0)
        seen.clear()
        starts.staged(case.student, large, case.theta)
        assert seen == [*sizes, n]


def test_every_stage_starts_where_the_last_one_ended(monkeypatch):
    monkeypatch.setattr(starts, "FEW", 5)
    case = problem("tied", n=500, replicates=1)
    ended, begun = fit(case.student, case.data, case.theta, passes=0), []

    def planted(model, data, start, *given, **options):
        begun.append(start.clone())
        return dataclasses.replace(ended, theta=start + 0.01)

    monkeypatch.setattr(starts, "fit", planted)
    found = starts.staged(case.student, case.data, torch.full_like(case.theta, 20.0))
    assert len(begun) == 3 and (begun[0] == BOX.radius).all()  # moved into the box
    assert torch.equal(begun[1], begun[0] + 0.01) and torch.equal(found.theta, begun[2] + 0.01)


def test_an_estimate_from_one_start_agrees_with_itself():
    case = problem("tied", d=2, n=80, replicates=2)
    start = starts.near(case.student, case.truth, case.theta, 2, 0)
    found = starts.estimate_near(case.student, case.data, start, box=Box(6.0, -1.0))
    assert found.agreeing.tolist() == [1.0, 1.0]
    assert torch.equal(found.fits.theta, starts.staged(case.student, case.data, start, box=Box(6.0, -1.0)).theta)


def test_random_restarts_keep_the_lowest_and_count_those_that_agree(monkeypatch):
    """Against one fit a start, compared by hand; and for all data sets the starts differ."""
    monkeypatch.setattr(starts, "FEW", 60)
    case = problem("tied", extra=1, d=2, n=150, replicates=3)
    found = starts.estimate_random(case.student, case.data, restarts=5, seed=8)
    each = starts.at_random(case.student, 15, 8).clamp(*BOX.bounds(case.student)).unflatten(0, (3, 5))
    few = case.data.first(60)
    for which in range(3):
        alone = few.of(torch.tensor([which]))
        ends = [fit(case.student, alone, start[None], passes=starts.SCREEN) for start in each[which]]
        cost = torch.cat([end.cost for end in ends])
        agreeing = (cost <= cost.min() * (1 + starts.SAME)).double().mean()
        assert found.agreeing[which] == agreeing
        best = ends[int(cost.argmin())].theta
        whole = starts.staged(case.student, case.data.of(torch.tensor([which])), best)
        assert found.fits.cost[which].item() == pytest.approx(whole.cost.item(), rel=1e-9)
        torch.testing.assert_close(found.fits.theta[which], whole.theta[0], rtol=1e-5, atol=1e-5)
    assert found.agreeing.min() >= 0.2 and len(set(found.agreeing.tolist())) > 1


def test_a_good_start_among_bad_ones_is_the_one_that_is_kept(monkeypatch):
    case = problem("untied", d=2, n=100, replicates=2, noise=0.05)
    bad = torch.zeros(case.student.parameters, dtype=torch.float64)  # equal atoms: a saddle that holds them
    mine = torch.stack([bad, bad, case.theta[0], case.theta[0], bad, bad])  # third of the first set, first of the next
    monkeypatch.setattr(starts, "at_random", lambda student, count, seed: mine[:count])
    found = starts.estimate_random(case.student, case.data, restarts=3, seed=0)
    direct = fit(case.student, case.data, case.theta.expand(2, -1))
    torch.testing.assert_close(found.fits.cost, direct.cost, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.agreeing, torch.full((2,), 1 / 3, dtype=torch.float64))
