"""Voronoi losses and the choice among equal copies: by hand, against plain loops, and whatever the order of atoms."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vpt_analysis.theory import voronoi
from vpt_analysis.theory.alignment import MOST, align
from vpt_analysis.theory.atoms import Atoms
from vpt_analysis.theory.frozen import frozen, normal_draws
from vpt_analysis.theory.regression import model

SHAPES = {"key": (3,), "value": (2,)}
seeds = st.integers(0, 10_000)


def random_atoms(*shape: int, seed: int, blocks: dict = SHAPES) -> Atoms:
    normal = normal_draws(seed)
    return Atoms(normal(*shape), {name: normal(*shape, *block) for name, block in blocks.items()})


def on_a_line(masses: list[float], values: list) -> Atoms:
    """Atoms with one number each, for cases that can be done by hand."""
    masses, values = torch.tensor(masses, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    return Atoms(masses.log(), {"value": values.unsqueeze(-1)})


def pick(atoms: Atoms, index) -> Atoms:
    return Atoms(atoms.log_mass[..., index], {k: b[..., index, :] for k, b in atoms.blocks.items()})


def fields(found: voronoi.Voronoi) -> dict[str, torch.Tensor]:
    plain = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    return plain | {f"d_{r}": values for r, values in plain.pop("d_r").items()}


def by_loops(estimate: Atoms, truth: Atoms, orders=(1, 2, 3, 4)) -> tuple[dict, dict]:
    """The definitions, one atom at a time, with Python's numbers."""

    def flat(atoms, i):
        return {k: b[i].flatten().tolist() for k, b in atoms.blocks.items()}

    def norms(a, b):
        return [math.dist(a[k], b[k]) for k in a]

    true = [flat(truth, j) for j in range(truth.count)]
    members = [[] for _ in true]
    cell = []
    for i in range(estimate.count):
        here = flat(estimate, i)
        distances = [math.hypot(*norms(here, other)) for other in true]
        cell.append(distances.index(min(distances)))
        members[cell[-1]].append((math.exp(estimate.log_mass[i]), norms(here, true[cell[-1]])))
    sums = [abs(sum(m for m, _ in mem) - math.exp(b)) for mem, b in zip(members, truth.log_mass.tolist(), strict=True)]
    exact = [mem[0] for mem in members if len(mem) == 1]
    over = [one for mem in members if len(mem) > 1 for one in mem]
    found = {"cell": cell, "size": [len(mem) for mem in members], "mass_error": sum(sums)}
    found["d_1"] = sum(m * sum(n) for m, n in exact) + sum(m * sum(v**2 for v in n) for m, n in over) + sum(sums)
    losses = {r: sum(m * sum(v**r for v in n) for m, n in exact + over) + sum(sums) for r in orders}
    found["mass_exact"] = sum(e for e, mem in zip(sums, members, strict=True) if len(mem) == 1) if exact else math.nan
    found["mass_over"] = sum(e for e, mem in zip(sums, members, strict=True) if len(mem) > 1) if over else math.nan
    found["exact_mean"] = sum(math.hypot(*n) for _, n in exact) / len(exact) if exact else math.nan
    found["exact_max"] = max((math.hypot(*n) for _, n in exact), default=math.nan)
    mass = sum(m for m, _ in over)
    found["over_mean"] = sum(m * math.hypot(*n) for m, n in over) / mass if over else math.nan
    found["over_max"] = max((math.hypot(*n) for _, n in over), default=math.nan)
    return found, losses


@pytest.mark.parametrize(("fitted", "true"), [(1, 1), (2, 3), (3, 2), (4, 2), (5, 5)])
def test_agrees_with_plain_loops(fitted, true):
    for seed in range(20):
        estimate, truth = random_atoms(fitted, seed=seed), random_atoms(true, seed=1000 + seed)
        orders = (1, 2, 2.5, 3, 4, 7, 100)
        found = voronoi.compare(estimate, truth, orders)
        expected, losses = by_loops(estimate, truth, orders)
        for name, value in expected.items():
            assert getattr(found, name).tolist() == pytest.approx(value, rel=1e-12, abs=1e-15, nan_ok=True), name
        for r, value in losses.items():
            assert float(found.d_r[r]) == pytest.approx(value, rel=1e-12, abs=0)


def test_matrices_count_with_their_frobenius_norm():
    blocks = {"weight": (2, 3), "out": (3, 2)}
    estimate, truth = random_atoms(3, seed=0, blocks=blocks), random_atoms(2, seed=1, blocks=blocks)
    expected, losses = by_loops(estimate, truth)
    assert float(voronoi.d_1(estimate, truth)) == pytest.approx(expected["d_1"], rel=1e-12, abs=0)
    assert float(voronoi.d_r(estimate, truth, 3)) == pytest.approx(losses[3], rel=1e-12, abs=0)


@given(seed=seeds, count=st.integers(1, 5))
def test_zero_at_the_truth(seed, count):
    truth = random_atoms(count, seed=seed)
    for copy in (truth, pick(truth, torch.randperm(count))):
        found = voronoi.compare(copy, truth)
        assert found.d_1 == found.mass_error == found.exact_max == 0 and (found.size == 1).all()
        assert all(loss == 0 for loss in found.d_r.values())


@given(seed=seeds, lone=st.integers(0, 2))
def test_positive_away_from_the_truth(seed, lone):
    """A change of one block of one atom, or of one mass, is seen by every loss."""
    truth = random_atoms(3, seed=seed)
    for name in ("key", "value", "log_mass"):
        tensors = {"log_mass": truth.log_mass.clone()} | {k: b.clone() for k, b in truth.blocks.items()}
        tensors[name][lone] += 1e-3
        found = voronoi.compare(Atoms(tensors.pop("log_mass"), tensors), truth)
        assert found.d_1 > 0 and all(loss > 0 for loss in found.d_r.values())


@given(seed=seeds, fitted=st.integers(1, 5), true=st.integers(1, 4), data=st.data())
def test_order_of_atoms_means_nothing(seed, fitted, true, data):
    estimate, truth = random_atoms(fitted, seed=seed), random_atoms(true, seed=seed + 1)
    p = torch.tensor(data.draw(st.permutations(range(fitted))))
    q = torch.tensor(data.draw(st.permutations(range(true))))
    first, second = voronoi.compare(estimate, truth), voronoi.compare(pick(estimate, p), pick(truth, q))
    assert torch.equal(q[second.cell], first.cell[p]) and torch.equal(second.size, first.size[q])
    for name, value in fields(first).items():
        if name not in ("cell", "size"):
            torch.testing.assert_close(fields(second)[name], value, rtol=1e-13, atol=1e-15, equal_nan=True, msg=name)


@given(seed=seeds, scale=st.sampled_from([0.125, 4.0]), r=st.sampled_from([1, 2, 3, 2.5]))
def test_homogeneity(seed, scale, r):
    """Lengths scale D_r without its mass part by scale^r and distances by scale; masses scale everything once."""
    estimate, truth = random_atoms(4, seed=seed), random_atoms(3, seed=seed + 1)

    def scaled(atoms):
        return Atoms(atoms.log_mass, {k: scale * b for k, b in atoms.blocks.items()})

    def heavier(atoms):
        return Atoms(atoms.log_mass + math.log(scale), atoms.blocks)

    before = voronoi.compare(estimate, truth, (r,))
    longer = voronoi.compare(scaled(estimate), scaled(truth), (r,))
    lengths = before.d_r[r] - before.mass_error
    torch.testing.assert_close(longer.d_r[r] - longer.mass_error, scale**r * lengths, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(longer.exact_mean, scale * before.exact_mean, rtol=1e-13, atol=0, equal_nan=True)
    torch.testing.assert_close(longer.over_max, scale * before.over_max, rtol=1e-13, atol=0, equal_nan=True)
    more = voronoi.compare(heavier(estimate), heavier(truth), (r,))
    torch.testing.assert_close(more.d_r[r], scale * before.d_r[r], rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(more.d_1, scale * before.d_1, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(more.over_mean, before.over_mean, rtol=1e-13, atol=0, equal_nan=True)


def test_every_element_of_a_batch_is_what_it_is_alone():
    estimate, truths = random_atoms(7, 3, 4, seed=0), random_atoms(7, 3, 2, seed=1)
    truth = pick(random_atoms(2, seed=2), [0, 1])
    for true, one in ((truth, lambda i, j: truth), (truths, None)):
        orders = (1, 2, 2.5, 3, 4, 7, 100)
        batch = fields(voronoi.compare(estimate, true, orders))
        for i, j in itertools.product(range(7), range(3)):
            alone = Atoms(estimate.log_mass[i, j], {k: b[i, j] for k, b in estimate.blocks.items()})
            its = one(i, j) if one else Atoms(truths.log_mass[i, j], {k: b[i, j] for k, b in truths.blocks.items()})
            for name, value in fields(voronoi.compare(alone, its, orders)).items():
                assert torch.equal(value.nan_to_num(-1), batch[name][i, j].nan_to_num(-1)), name


def test_layout_in_memory_and_threads_change_no_bit():
    # 128 parameters: long enough for vectorised sums. A vector keeps its strides when it is flattened.
    for blocks in ({"weight": (8, 16)}, {"value": (128,)}):
        estimate, truth = random_atoms(50, 3, seed=0, blocks=blocks), random_atoms(2, seed=1, blocks=blocks)
        turned = {k: b.movedim(-1, 0).contiguous().movedim(0, -1) for k, b in estimate.blocks.items()}
        check_bits(estimate, Atoms(estimate.log_mass.T.contiguous().T, turned), truth)


def check_bits(estimate: Atoms, turned: Atoms, truth: Atoms) -> None:
    found = [fields(voronoi.compare(atoms, truth)) for atoms in (estimate, turned)]
    torch.set_num_threads(2)
    try:
        found.append(fields(voronoi.compare(estimate, truth)))
    finally:
        torch.set_num_threads(1)
    for name, value in found[0].items():
        for other in found[1:]:
            assert torch.equal(value.nan_to_num(-1), other[name].nan_to_num(-1)), name


def test_an_empty_cell_counts_its_whole_mass():
    found = voronoi.compare(on_a_line([2], [0.0]), on_a_line([2, 3], [0, 9]))
    assert found.size.tolist() == [1, 0]
    assert float(found.d_1) == float(found.mass_error) == pytest.approx(3, abs=1e-14)
    assert found.mass_exact == 0 and found.over_mean.isnan() and found.over_max.isnan() and found.mass_over.isnan()


def test_one_atom_in_a_cell_enters_as_it_is_several_squared():
    truth = on_a_line([1, 1], [0, 10])
    alone = voronoi.compare(on_a_line([1, 1], [0.5, 10]), truth)
    assert float(alone.d_1) == 0.5 and float(alone.exact_mean) == 0.25 and alone.over_mean.isnan()
    both = voronoi.compare(on_a_line([0.5, 0.5, 1], [0.5, -0.5, 10]), truth)
    assert float(both.d_1) == 0.25 and float(both.over_mean) == 0.5 and float(both.exact_max) == 0
    assert float(both.d_r[1]) == 0.5 and float(both.d_r[3]) == 0.125
    none = voronoi.compare(on_a_line([0.5, 0.5], [0.5, -0.5]), on_a_line([1], [0]))
    assert none.exact_mean.isnan() and none.exact_max.isnan() and none.mass_exact.isnan() and none.mass_over == 0


def test_an_atom_switches_cells_in_the_middle_between_two():
    truth = on_a_line([1, 1], [0, 2])
    for value, cell, loss in ((0.75, 0, 0.75 + 1), (1.0, 0, 1 + 1), (1.25, 1, 0.75 + 1)):
        found = voronoi.compare(on_a_line([1], [value]), truth)
        assert found.cell.tolist() == [cell] and float(found.d_1) == loss  # at equal distance the first


def test_weighted_mean_of_over_fitted_atoms():
    found = voronoi.compare(on_a_line([3, 1], [1, -5]), on_a_line([1], [0]))
    assert float(found.over_mean) == pytest.approx((3 * 1 + 1 * 5) / 4, rel=1e-15) and float(found.over_max) == 5
    light = voronoi.compare(Atoms(found.over_mean.new_tensor([-2000.0, -2000.0]), {"value": torch.ones(2, 1).double()}),
                            on_a_line([1], [0]))  # fmt: skip
    assert float(light.over_mean) == 1  # masses that are 0 in float64


def test_blocks_are_measured_one_by_one_and_cells_over_all():
    """A 3-4-5 triangle: blocks 3 and 4 away are together 5 away."""
    zero = torch.zeros(1, 1).double()
    estimate = Atoms(zero[0], {"key": zero + 3, "value": zero + 4})
    truth = Atoms(zero[0], {"key": zero, "value": zero})
    found = voronoi.compare(estimate, truth)
    assert float(found.d_1) == 7 and float(found.d_r[2]) == 25 and float(found.exact_mean) == 5
    truths = Atoms(torch.zeros(2).double(), {"key": torch.tensor([[0.0], [3.0]]).double(),
                                             "value": torch.tensor([[0.0], [9.0]]).double()})  # fmt: skip
    assert voronoi.cells(estimate, truths).tolist() == [0]  # not those with the nearest key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: Atoms(a.log_mass, {"key": a.blocks["key"]}), "blocks key, the truth key, value; expected the same"),
        (lambda a: Atoms(a.log_mass, a.blocks | {"value": a.blocks["key"]}), r"'value': \(3,\) in an atom of the esti"),
        (lambda a: Atoms(a.log_mass.float(), a.blocks), "'log_mass' of the estimate is torch.float32; expected torch"),
        (lambda a: Atoms(a.log_mass, a.blocks | {"key": a.blocks["key"].float()}), "'key' of the estimate is torch.fl"),
        (lambda a: Atoms(a.log_mass / 0, a.blocks), "'log_mass' of the estimate has 8 of 8 values that are not finite"),
        (
            lambda a: Atoms(a.log_mass, a.blocks | {"value": a.blocks["value"] * math.nan}),
            "'value' of the estimate has",
        ),
        (lambda a: pick(a, []), "0 fitted and 2 true atoms; expected at least one"),
    ],
)
def test_measures_that_do_not_fit_are_refused(change, message):
    estimate, truth = random_atoms(2, 4, seed=0), random_atoms(2, seed=1)
    voronoi.compare(estimate, truth)
    for function in (voronoi.compare, voronoi.d_1, voronoi.cells, lambda e, t: voronoi.d_r(e, t, 2)):
        with pytest.raises(ValueError, match=message):
            function(change(estimate), truth)


def test_a_truth_with_another_batch_is_refused():
    with pytest.raises(ValueError, match=r"a truth with leading shape \(3,\); expected \(\) or the estimate's \(2,\)"):
        voronoi.compare(random_atoms(2, 4, seed=0), random_atoms(3, 2, seed=1))
    with pytest.raises(ValueError, match="'value' of the truth is torch.float32"):
        truth = random_atoms(2, seed=1)
        voronoi.cells(random_atoms(4, seed=0), Atoms(truth.log_mass, truth.blocks | {"value": torch.zeros(2, 2)}))


@pytest.mark.parametrize("r", [0, 0.99, -1, math.nan, math.inf])
def test_orders_below_1_are_refused(r):
    truth = random_atoms(2, seed=0)
    with pytest.raises(ValueError, match="expected a finite number ≥ 1"):
        voronoi.d_r(truth, truth, r)
    with pytest.raises(ValueError, match="expected a finite number ≥ 1"):
        voronoi.compare(truth, truth, (1, r))


# The symmetries of two-layer prompts


def two_layers(*shape: int, seed: int, units: int = 3, d: int = 4) -> Atoms:
    normal = normal_draws(seed)
    out = normal(*shape[:-1], 1, d, units).expand(*shape, d, units)
    return Atoms(normal(*shape), {"weight": normal(*shape, units, d), "out": out})


def turn(atoms: Atoms, order, sign) -> Atoms:
    sign = torch.tensor(sign).double()
    weight, out = atoms.blocks["weight"][..., order, :], atoms.blocks["out"][..., order]
    return Atoms(atoms.log_mass, {"weight": sign[:, None] * weight, "out": sign * out})


def copies(atoms: Atoms, odd: bool = True):
    units = atoms.blocks["weight"].shape[-2]
    for order in itertools.permutations(range(units)):
        for sign in itertools.product((1.0, -1.0) if odd else (1.0,), repeat=units):
            yield turn(atoms, list(order), sign)


@pytest.mark.parametrize("odd", [True, False])
def test_every_copy_of_the_truth_comes_back_to_it(odd):
    truth = two_layers(2, seed=0)
    for copy in copies(truth, odd):
        aligned = align(copy, truth, odd)
        assert voronoi.d_1(aligned, truth) == 0
        assert all(torch.equal(aligned.blocks[k], truth.blocks[k]) for k in truth.blocks)


@pytest.mark.parametrize("odd", [True, False])
def test_no_copy_is_nearer(odd):
    for seed in range(5):
        estimate, truth = two_layers(3, seed=seed), two_layers(2, seed=seed + 100)
        losses = [float(voronoi.d_r(copy, truth, 2)) for copy in copies(estimate, odd)]
        assert len(losses) == 6 * (8 if odd else 1)
        found = float(voronoi.d_r(align(estimate, truth, odd), truth, 2))
        assert found == pytest.approx(min(losses), rel=1e-13, abs=0)
        assert min(losses) < max(losses)


def test_the_function_stays_the_same():
    known = frozen(4, 2, hidden=3)
    atoms, x = two_layers(1, 3, seed=0), normal_draws(5)(1, 4, 50)
    truth = Atoms(atoms.log_mass[0], {k: block[0] for k, block in atoms.blocks.items()})
    for activation, odd in (("tanh", True), ("gelu", False)):
        regression = model("nonlinear", known, 3, activation_name=activation)
        estimate = turn(atoms, [2, 0, 1], (-1.0, 1.0, -1.0) if odd else (1.0, 1.0, 1.0))
        aligned = align(estimate, truth, odd)
        assert not torch.equal(aligned.blocks["weight"], estimate.blocks["weight"])
        values = [regression.predict(regression.pack(atoms), x) for atoms in (estimate, aligned)]
        torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)


def test_signs_are_left_alone_where_the_activation_is_not_odd():
    truth = two_layers(2, seed=0)
    flipped = turn(truth, [0, 1, 2], (-1.0, 1.0, 1.0))
    assert voronoi.d_1(align(flipped, truth), truth) == 0
    assert voronoi.d_1(align(flipped, truth, odd=False), truth) > 0.1


def test_aligned_batches_are_what_each_is_alone():
    estimate, truth = two_layers(6, 2, seed=0), two_layers(2, seed=50)
    batch = align(estimate, truth)
    truths = Atoms(truth.log_mass.expand(6, -1), {k: b.expand(6, *b.shape) for k, b in truth.blocks.items()})
    again = align(estimate, truths)
    for i in range(6):
        alone = align(Atoms(estimate.log_mass[i], {k: b[i] for k, b in estimate.blocks.items()}), truth)
        for k, block in alone.blocks.items():
            assert torch.equal(block, batch.blocks[k][i]) and torch.equal(block, again.blocks[k][i])


def test_light_atoms_do_not_choose_the_copy():
    """An atom of hardly any mass may lie anywhere; the copy is that of the heavy ones."""
    truth = two_layers(1, seed=0)
    lost = turn(two_layers(1, seed=9), [1, 0, 2], (1.0, -1.0, 1.0)).blocks["weight"] * 10
    copy = turn(truth, [2, 0, 1], (1.0, -1.0, -1.0))
    out = copy.blocks["out"].expand(2, -1, -1)
    estimate = Atoms(
        torch.tensor([0.0, -30.0]).double(), {"weight": torch.cat([copy.blocks["weight"], lost]), "out": out}
    )
    aligned = align(estimate, truth)
    assert torch.equal(aligned.blocks["weight"][0], truth.blocks["weight"][0])


def test_alignment_refuses_what_has_no_hidden_units():
    truth = two_layers(2, seed=0)
    with pytest.raises(ValueError, match="expected weight and out, only the non-linear family has hidden units"):
        align(random_atoms(2, seed=0), random_atoms(2, seed=1))
    own = Atoms(truth.log_mass, truth.blocks | {"out": truth.blocks["out"] + torch.arange(2.0).view(2, 1, 1).double()})
    with pytest.raises(ValueError, match="the atoms of the estimate have an out each; expected one"):
        align(own, truth)
    odd = Atoms(truth.log_mass, truth.blocks | {"out": truth.blocks["out"].mT})
    with pytest.raises(ValueError, match=r"expected \(\.\.\., L, r, d\) and \(\.\.\., L, d, r\)"):
        align(odd, odd)
    wide = two_layers(1, seed=0, units=MOST + 1, d=8)
    with pytest.raises(ValueError, match=f"{MOST + 1} hidden units; all copies of at most {MOST} can be tried"):
        align(wide, wide)
