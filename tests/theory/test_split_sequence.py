"""The split sequence: its closed forms against fifty digits, and what follows from them."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import pytest
import torch

from vpt_analysis.theory import voronoi
from vpt_analysis.theory.atoms import Atoms
from vpt_analysis.theory.frozen import frozen, normal_draws
from vpt_analysis.theory.regression import model, teacher
from vpt_analysis.theory.split_sequence import Split, root_mean_square, sequence

D, E, L, S = 3, 2, 2, 24
FAMILIES = ("tied", "untied", "norga")


def split(family: str, seed: int = 0, direction: dict | None = None) -> Split:
    known = frozen(D, E, experts=2, seed=seed)
    regression = model(family, known, L)
    found = regression.atoms(teacher(regression, seed))
    truth = Atoms(found.log_mass[0], {k: block[0] for k, block in found.blocks.items()})
    normal = normal_draws(100 + seed)
    x, u = normal(D, S), normal(D)
    if direction is None:
        direction = {"prompt": u} if family == "tied" else {"value": known.value @ u}
    return Split(regression, truth, x, direction, atom=seed % L)


def numbers(values) -> list[mpmath.mpf]:
    return [mpmath.mpf(v) for v in values.flatten().tolist()]


def exact(number) -> mpmath.mpf:
    return mpmath.mpf(number.numerator) / number.denominator if isinstance(number, Fraction) else mpmath.mpf(number)


def dot(a, b) -> mpmath.mpf:
    return mpmath.fsum(p * q for p, q in zip(a, b, strict=True))


def image(matrix, vector) -> list[mpmath.mpf]:
    return [dot(numbers(row), vector) for row in matrix]


def predict(case: Split, atoms: list[tuple], x: list) -> list[mpmath.mpf]:
    """f(x) by its definition. An atom: mass, key and value (untied, norga) or prompt."""
    known, name = case.regression.known, case.regression.prompts.name
    weights, experts = [], []
    for A, a, H in zip(known.quadratic, known.offset, known.expert, strict=True):
        weights.append(mpmath.exp(dot(image(A, x), x) + mpmath.mpf(float(a))))
        experts.append(image(H, x))
    for mass, blocks in atoms:
        key = image(known.key, blocks["prompt"]) if name == "tied" else blocks["key"]
        score = dot(key, x)
        score += mpmath.tanh(score) if name == "norga" else 0
        weights.append(mass * mpmath.exp(score))
        experts.append(image(known.value, blocks["prompt"]) if name == "tied" else blocks["value"])
    whole = mpmath.fsum(weights)
    return [mpmath.fsum(w * e[k] for w, e in zip(weights, experts, strict=True)) / whole for k in range(E)]


def by_definition(case: Split, step, extra) -> list[list[mpmath.mpf]]:
    """f of the split measure minus f, at every input, as a difference of two evaluations."""
    step, extra = exact(step), exact(extra)
    true = [
        (mpmath.exp(mpmath.mpf(float(b))), {k: numbers(block[i]) for k, block in case.truth.blocks.items()})
        for i, b in enumerate(case.truth.log_mass)
    ]
    mass, blocks = true[case.atom]
    move = {k: [step * v for v in numbers(u)] for k, u in case.direction.items()}
    halves = []
    for sign in (-1, 1):
        moved = {k: [v + sign * m for v, m in zip(values, move.get(k, [0] * len(values)), strict=True)]
                 for k, values in blocks.items()}  # fmt: skip
        halves.append(((mass + extra) / 2, moved))
    others = [atom for i, atom in enumerate(true) if i != case.atom]
    found = []
    for x in case.x.T:
        x = numbers(x)
        pairs = zip(predict(case, others + halves, x), predict(case, true, x), strict=True)
        found.append([new - old for new, old in pairs])
    return found


def norm(rows) -> mpmath.mpf:
    return mpmath.sqrt(mpmath.fsum(v**2 for row in rows for v in row))


def error(case: Split, step, extra, difference) -> float:
    """Norm of the error of a difference over the norm of the difference."""
    with mpmath.workdps(50):
        true = by_definition(case, step, extra)
        pairs = zip(true, (numbers(row) for row in difference.T), strict=True)
        return float(norm([[a - b for a, b in zip(p, q, strict=True)] for p, q in pairs]) / norm(true))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("n", "r"), [(1, 1), (10, 1), (1000, 2), (10**5, 4)])
def test_function_distance_is_exact_to_1e_15(family, n, r):
    for seed in range(3):
        case = split(family, seed)
        step, extra = sequence(n, r)
        assert error(case, step, extra, case.difference(step, extra)) <= 1e-15
        with mpmath.workdps(50):
            true = norm(by_definition(case, step, extra)) / mpmath.sqrt(S)
            assert abs(case.distance(step, extra) / true - 1) <= 1e-15


@pytest.mark.parametrize("family", FAMILIES)
def test_difference_of_two_evaluations_is_right_for_long_steps_and_rounding_for_short_ones(family):
    case = split(family)
    assert error(case, 0.5, 0.25, case.naive_difference(0.5, 0.25)) < 1e-14
    step, extra = sequence(10**5, 4)
    assert error(case, step, extra, case.naive_difference(step, extra)) > 1e-7
    assert error(case, step, extra, case.difference(step, extra)) < 1e-15


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("r", [1, 2, 3, 4, 7])
def test_loss_is_exact_to_1e_15(family, r):
    """The directions have irrational norms; the order-th power must not multiply a rounding error."""
    for seed, n in ((0, 10), (1, 997), (2, 10**5)):
        case = split(family, seed)
        step, extra = sequence(n, r)
        with mpmath.workdps(50):
            mass = mpmath.exp(mpmath.mpf(float(case.truth.log_mass[case.atom])))
            powers = mpmath.fsum((norm([numbers(u)]) * exact(step)) ** r for u in case.direction.values())
            true = (mass + exact(extra)) * powers + exact(extra)
            assert abs(case.loss(step, extra, r) / true - 1) <= 1e-15


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_that_of_the_voronoi_cells(family):
    for seed in range(3):
        case = split(family, seed)
        for step, extra in ((0.1, 0.01), (Fraction(1, 64), Fraction(1, 4096))):
            measure = case.measure(step, extra)
            for r in (1, 2, 3):
                assert case.loss(step, extra, r) == pytest.approx(
                    float(voronoi.d_r(measure, case.truth, r)), rel=1e-11, abs=0
                )
            assert case.loss(step, extra, 2) == pytest.approx(float(voronoi.d_1(measure, case.truth)), rel=1e-11, abs=0)


def test_loss_with_two_blocks_and_key_steps():
    u = {"key": torch.tensor([0.375, 0.0, 0.5]).double(), "value": torch.tensor([0.0, 2.0]).double()}
    case = split("untied", direction=u)
    mass = math.exp(float(case.truth.log_mass[0]))
    assert case.loss(0.5, 0.0, 3) == pytest.approx(mass * (0.3125**3 + 1), rel=1e-15, abs=0)
    assert error(case, *sequence(100, 2), case.difference(*sequence(100, 2))) <= 1e-15


def test_two_halves_replace_the_atom():
    case = split("untied", seed=1)
    measure = case.measure(0.5, 0.25)
    assert measure.count == L + 1 and case.atom == 1
    assert torch.equal(measure.blocks["key"][1:], case.truth.blocks["key"][[1, 1]])
    torch.testing.assert_close(measure.blocks["value"][1:].mean(0), case.truth.blocks["value"][1], rtol=0, atol=1e-15)
    torch.testing.assert_close(
        measure.log_mass[1:].exp().sum(), case.truth.log_mass[1].exp() + 0.25, rtol=1e-14, atol=0
    )
    assert torch.equal(measure.log_mass[0], case.truth.log_mass[0])


@pytest.mark.parametrize("family", ["untied", "norga"])
def test_split_values_without_extra_mass_change_nothing_at_any_distance(family):
    """Plain non-identifiability (theorem T9): exactly 0 in the closed form, rounding where it is evaluated."""
    case = split(family)
    for step in (1e-3, 0.1, 1.0, 10.0):
        assert not case.difference(step, 0).any()
        assert case.naive_difference(step, 0).abs().max() < 1e-12
    assert not case.second_order().any()
    assert case.loss(0.1, 0, 1) > 0.01


def test_tied_split_changes_the_function_at_order_2():
    """Theorem T9: fitted order 2 ± 0.05, and the coefficient is the one of ``second_order``."""
    case = split("tied")
    steps = [2.0**-k for k in range(2, 12)]
    sizes = [case.distance(step, 0) for step in steps]
    orders = [math.log2(a / b) for a, b in zip(sizes, sizes[1:], strict=False)]
    assert all(abs(order - 2) < 0.05 for order in orders)
    step = 1e-6
    torch.testing.assert_close(case.difference(step, 0) / step**2, case.second_order(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("r", [1, 2, 3, 4])
def test_untied_ratio_falls_as_1_over_n(r):
    for family in ("untied", "norga"):
        case = split(family)
        ratio = {n: case.distance(*sequence(n, r)) / case.loss(*sequence(n, r), r) for n in (10**3, 10**4, 10**5)}
        assert math.log10(ratio[10**3] / ratio[10**4]) == pytest.approx(1, abs=0.02)
        assert math.log10(ratio[10**4] / ratio[10**5]) == pytest.approx(1, abs=0.002)


def test_tied_ratio_to_d_1_tends_to_a_positive_constant():
    for seed in range(4):
        case = split("tied", seed)
        mass, square = math.exp(float(case.truth.log_mass[case.atom])), float(case.direction["prompt"].square().sum())
        limit = root_mean_square(case.second_order()) / (mass * square)
        ratios = [case.distance(*sequence(n, 2)) / case.loss(*sequence(n, 2), 2) for n in (10**3, 10**5, 10**7)]
        assert limit > 1e-3
        assert abs(ratios[2] / limit - 1) < 1e-5 and abs(ratios[1] / limit - 1) < 1e-2
        # Against first powers over-fitted tied atoms are slow too: the ratio to D_r with r = 1 falls.
        first = [case.distance(*sequence(n, 1)) / case.loss(*sequence(n, 1), 1) for n in (10**3, 10**5)]
        assert first[1] < 0.02 * first[0]


def test_one_and_two_threads_give_the_same_bytes():
    case, found = split("tied"), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found.append((case.difference(*sequence(50, 2)), case.loss(*sequence(50, 2), 2)))
        finally:
            torch.set_num_threads(1)
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]


def test_norm_of_what_squares_to_nothing():
    tiny = torch.tensor([[3e-200, 3e-200], [4e-200, 4e-200]], dtype=torch.float64)
    assert abs(root_mean_square(tiny) / 5e-200 - 1) < 1e-15
    assert root_mean_square(torch.zeros(2, 3).double()) == 0


@pytest.mark.parametrize(("n", "r"), [(0, 1), (10, 0), (1.5, 1), (10, 2.5)])
def test_sequences_need_whole_numbers(n, r):
    with pytest.raises(ValueError, match="expected a whole number ≥ 1"):
        sequence(n, r)


def test_splits_without_a_closed_form_are_refused():
    case = split("untied")
    value = case.direction["value"]
    adaptive = model("linear", frozen(D, E), L)
    with pytest.raises(ValueError, match="the linear family; a split in closed form is known for tied, untied, norga"):
        Split(adaptive, case.truth, case.x, case.direction)
    norga = split("norga")
    with pytest.raises(ValueError, match="a direction with blocks"):
        Split(norga.regression, norga.truth, norga.x, {"key": torch.ones(D).double()})
    for direction in ({}, {"value": value[:1]}, {"prompt": value}):
        with pytest.raises(ValueError, match="a direction with blocks"):
            Split(case.regression, case.truth, case.x, direction)
    with pytest.raises(ValueError, match="the direction is zero"):
        Split(case.regression, case.truth, case.x, {"value": 0 * value})
    with pytest.raises(ValueError, match="atom 2 of log-masses"):
        Split(case.regression, case.truth, case.x, case.direction, atom=2)
    with pytest.raises(ValueError, match="x is torch.float32"):
        Split(case.regression, case.truth, case.x.float(), case.direction)
    with pytest.raises(ValueError, match="value is torch.float64 with 2 values that are not finite"):
        Split(case.regression, case.truth, case.x, {"value": value / 0})
    with pytest.raises(ValueError, match="x has shape"):
        Split(case.regression, case.truth, case.x.T, case.direction)


def test_loss_refuses_a_step_into_another_cell_and_odd_orders():
    """Two true atoms with one key: a step from one value beyond the middle between the two."""
    case = split("untied")
    key = case.truth.blocks["key"][:1].expand(L, -1)
    value = torch.tensor([[0.0, 0.0], [1.0, 0.0]]).double()
    truth = Atoms(case.truth.log_mass, {"key": key, "value": value})
    case = Split(case.regression, truth, case.x, {"value": torch.tensor([1.0, 0.0]).double()})
    assert case.loss(0.4, 0, 2) > 0
    with pytest.raises(ValueError, match="a step of 0.6 takes a half into the cell of another atom"):
        case.loss(0.6, 0, 2)
    for r in (0, 0.5, 1.5, math.nan):
        with pytest.raises(ValueError, match="order r"):
            case.loss(0.1, 0, r)
