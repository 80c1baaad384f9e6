"""Teachers of one layer and the floors of prompts that are to reach them: against the changed layer itself, cases by
hand, and what must not change them."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

import vpt_analysis as va
from vpt_analysis.attention import KeyGroup, additive, attend
from vpt_analysis.probes import floor_bounds, floor_fits, floor_search, floors, teachers
from vpt_analysis.probes.one_layer import OneLayer

N, QUERIES, CLASSES = 60, (0, 3, 7), 3
LABELS = torch.arange(N) % CLASSES


def backbone(eps: float = 1e-6) -> va.VisionTransformer:
    config = va.ViTConfig(image_size=16, patch_size=4, width=16, depth=2, heads=2, eps=eps)
    vit = va.VisionTransformer(config, seed=0).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for p in vit.parameters():
        gain = 1 / math.sqrt(p.shape[-1]) if p.ndim > 1 else 0.3
        p.add_(gain * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    for block in vit.blocks:
        block.attention.qkv.bias[:16] += 2.0  # as in trained layers, queries lie on one side of 0
    return vit


@pytest.fixture(scope="module")
def vit() -> va.VisionTransformer:
    return backbone()


@pytest.fixture(scope="module")
def tokens(vit) -> list[torch.Tensor]:
    """What enters the first and the second block."""
    images = torch.randn(N, 3, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = vit.embed(images)
    return [x, vit.blocks[0](x)]


@pytest.fixture(scope="module")
def layer(vit, tokens) -> OneLayer:
    return OneLayer(vit.blocks[1], tokens[1], QUERIES)


@pytest.fixture(scope="module")
def first(vit, tokens) -> OneLayer:
    """CLS of the first block: one query for all images."""
    return OneLayer(vit.blocks[0], tokens[0], (0,))


def drawn(name: str, layer: OneLayer, seed: int = 0, energy: float = 0.05) -> tuple[teachers.Teacher, torch.Tensor]:
    teacher = teachers.draw(name, layer, seed, energy, LABELS, rank=2)
    return teacher, teacher.change(layer, LABELS)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def given(layer: OneLayer, change: torch.Tensor, group: KeyGroup, read: torch.Tensor | None = None) -> floors.Floor:
    """The floor at the gates of ``group``, with static values or with values that read ``read`` too."""
    found = floors.gates(layer, group)
    columns = found.prompt if read is None else floors.readout(found, read)
    return floors.floor(columns, found.wanted(layer, change), float(change.square().sum()))


def hand() -> tuple[OneLayer, torch.Tensor]:
    """One token an image, queries 0, values the tokens ±v: λ is 1/2 for every prompt, and c = ±v."""
    block = va.VisionTransformer(va.ViTConfig(4, 4, 2, 1, 1)).double().requires_grad_(False).blocks[0]
    block.ln1 = nn.Identity()
    block.attention.qkv.weight.copy_(torch.cat([torch.zeros(4, 2), torch.eye(2)]))
    block.attention.qkv.bias.zero_()
    x = torch.tensor([[[1.0, 2.0]], [[-1.0, -2.0]]], dtype=torch.float64).repeat(5, 1, 1)
    layer = OneLayer(block, x, (0,))
    generator = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]], dtype=torch.float64)
    quarter = teachers.Teacher("rotation", {"generator": generator}, math.pi / 2)
    return layer, quarter.change(layer)


# --- teachers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", teachers.NAMES)
def test_every_teacher_has_the_energy_that_was_asked_for(name, layer):
    teacher, change = drawn(name, layer, energy=0.07)
    assert float(change.square().sum() / layer.content.square().sum()) == pytest.approx(0.07, rel=1e-9)
    again = teachers.draw(name, layer, 0, 0.07, LABELS, rank=2)
    assert torch.equal(again.change(layer, LABELS), change)
    other = teachers.draw(name, layer, 1, 0.07, LABELS, rank=2)
    assert not torch.equal(other.change(layer, LABELS), change) and teacher.name == name


@pytest.mark.parametrize("name", ["linear-value", "lora-v", "lora-q", "rotation"])
def test_changes_are_those_of_a_layer_with_changed_weights(name, layer):
    teacher, change = drawn(name, layer)
    block = copy.deepcopy(layer.block)
    weight, bias = block.attention.qkv.weight.chunk(3), block.attention.qkv.bias.chunk(3)
    if name == "rotation":
        turn = torch.block_diag(*torch.linalg.matrix_exp(teacher.strength * teacher.parameters["generator"]))
        assert torch.allclose(turn @ turn.T, torch.eye(16, dtype=torch.float64), atol=1e-12)
        weight[2].copy_(turn @ weight[2])
        bias[2].copy_(turn @ bias[2])
    else:
        part = 0 if name == "lora-q" else 2
        weight[part].add_(teacher.strength * teacher.parameters["update"].flatten(0, 1))
    changed = OneLayer(block, layer.tokens, QUERIES)
    assert torch.allclose(changed.content - layer.content, change, atol=1e-12)
    rank = torch.linalg.matrix_rank(teacher.parameters.get("update", torch.eye(16)).flatten(0, -2))
    assert rank == (2 if name.startswith("lora") else 16)


def test_the_gate_teacher_is_a_static_prompt_run_through_the_block(layer):
    teacher, change = drawn("gate", layer)
    value = teacher.strength * teacher.parameters["value"]
    group = KeyGroup(teacher.parameters["key"][None, :, None], value[None, :, None])
    seen = []
    layer.block(layer.tokens, group, lambda *call: seen.append(attend(*call)) or seen[-1])
    output = seen[0][:, :, list(QUERIES)].transpose(1, 2).flatten(0, 1)
    assert torch.allclose(output - layer.content, change, atol=1e-12)
    assert given(layer, change, group).share < 1e-20  # and its own keys reach it


def test_shifts_are_one_vector_for_all_or_for_a_class(layer):
    _, constant = drawn("constant", layer)
    assert torch.equal(constant, constant[:1].expand_as(constant))
    _, shifted = drawn("class", layer)
    by_image = shifted.unflatten(0, (N, len(QUERIES)))
    for c in range(CLASSES):
        mine = by_image[c == LABELS]
        assert torch.equal(mine, mine[:1, :1].expand_as(mine))
    assert not torch.equal(by_image[0], by_image[1])


def test_a_teacher_asked_about_other_images_is_the_same_function(vit, tokens, layer):
    for name in teachers.NAMES:
        teacher, change = drawn(name, layer)
        half = OneLayer(vit.blocks[1], tokens[1][20:], QUERIES)
        assert torch.allclose(teacher.change(half, LABELS[20:]), change[20 * len(QUERIES) :], atol=1e-12), name


# --- floors by hand ---------------------------------------------------------------------------------------------------


def test_a_quarter_turn_of_one_token_has_the_floor_that_arithmetic_gives():
    """(1 − λ) c + λ o against R c, with λ = 1/2, Σ c = 0, so o = 0: |(R − I + ½) c|² = (¼ + 1)|c|² of |Δ|² = 2|c|²."""
    layer, change = hand()
    for p in (1, 3):
        assert given(layer, change, KeyGroup(random(1, 1, p, 2), random(1, 1, p, 2))).share == pytest.approx(
            1.25 / 2 if p == 1 else (0.25**2 + 1) / 2  # three prompts of score 0 have the mass λ = 3/4
        )
    proved = floor_bounds.any_length(layer, change)
    assert proved.low <= 0.5 <= proved.high + 1e-9 and proved.low > 0.499 and proved.high < 0.501  # λ → 1: |R c|²/|Δ|²
    assert floors.constant_floor(change) == pytest.approx(1.0)
    group, read = floors.copies(layer, torch.tensor([0]))
    assert given(layer, change, group, read).share < 1e-20  # values that read the token turn it


def test_a_constant_shift_is_reached_by_one_added_prompt_and_by_no_joint_one(layer):
    _, change = drawn("constant", layer)
    key = random(1, 2, 1, 8)
    reached = given(layer, change, KeyGroup(key, key, combine=additive))
    assert reached.share < 1e-20 and torch.allclose(reached.coefficients[:, 0], change[0], atol=1e-12)
    assert floors.constant_floor(change) < 1e-20
    assert given(layer, change, KeyGroup(key, key)).share > 1e-3


@pytest.mark.parametrize("name", va.prompts.names())
def test_what_a_prompt_makes_has_floor_0_at_its_own_gates_if_its_values_are_static(name, vit, layer):
    prompt = va.prompts.create(name, vit.config, 3, seed=1).double().eval()
    for p in prompt.parameters():
        p.data += 0.5 * random(*p.shape, seed=3)
    if name in ("vpt-shallow", "gated"):
        with pytest.raises(ValueError, match="travel in the sequence"):
            floors.prompt_group(layer, prompt, 1)
        return
    with torch.no_grad():
        group = floors.prompt_group(layer, prompt, 1)
        seen = []
        layer.block(layer.tokens, group, lambda *call: seen.append(attend(*call)) or seen[-1])
        made = seen[0][:, :, list(QUERIES)].transpose(1, 2).flatten(0, 1)
    if group.temperature is None:
        assert torch.allclose(floors.outputs(layer, group), made, atol=1e-12)
        share = given(layer, made - layer.content, group).share
        assert share < 1e-18 if prompt.experts.startswith("static") else share > 1e-6


def test_more_columns_are_never_worse_and_the_residual_is_least(layer):
    _, change = drawn("lora-q", layer)
    found = floors.gates(layer, KeyGroup(random(1, 2, 8, 8), random(1, 2, 8, 8)))
    wanted, energy = found.wanted(layer, change), float(change.square().sum())
    shares = [floors.floor(found.prompt[..., :k], wanted, energy).share for k in (1, 2, 4, 8)]
    assert all(b < a for a, b in zip(shares, shares[1:], strict=False))
    best = floors.floor(found.prompt, wanted, energy)
    assert best.slack < 1e-20 and float(best.heads.sum()) == pytest.approx(best.share)
    assert floors.error(found.prompt, wanted, best.coefficients, energy) == pytest.approx(best.share, rel=1e-12)
    for seed in range(5):
        moved = best.coefficients + 1e-3 * random(*best.coefficients.shape, seed=seed)
        assert floors.error(found.prompt, wanted, moved, energy) > best.share
    doubled = torch.cat([found.prompt, found.prompt, torch.zeros_like(found.prompt)], dim=-1)
    assert floors.floor(doubled, wanted, energy).share == pytest.approx(best.share, rel=1e-9)


def test_values_that_read_copies_of_all_tokens_make_every_linear_value_update(layer):
    group, read = floors.copies(layer, torch.arange(17))
    for name in teachers.NAMES:
        _, change = drawn(name, layer)
        share = given(layer, change, group, read).share
        assert share < 1e-18 if name in ("linear-value", "rotation", "lora-v", "constant") else share > 1e-6, name
    weights = floors.gates(layer, group).content
    assert torch.allclose(weights, torch.full_like(weights, 0.5))  # copies have the content's mass


def test_reading_adds_columns_to_the_gates(layer):
    found = floors.gates(layer, KeyGroup(random(1, 2, 3, 8), random(1, 2, 3, 8)))
    read = floors.cells(layer, 3)
    columns = floors.readout(found, read)
    image, query = 4, 2
    i = image * len(QUERIES) + query
    by_hand = sum(found.prompt[i, 1, j] * read[image, j] for j in range(3))
    assert torch.allclose(columns[i, 1], torch.cat([found.prompt[i, 1], by_hand]), atol=1e-14)
    mean = layer.block.ln1(layer.tokens)[:, 1:].mean(1)
    assert torch.allclose(floors.cells(layer, 1)[:, 0], mean, atol=1e-14)
    assert floors.cells(layer, 40).shape == (N, 40, 16)  # 16 patches, read again
    assert torch.equal(floors.cells(layer, 40)[:, 16], floors.cells(layer, 40)[:, 0])


# --- what must not matter ---------------------------------------------------------------------------------------------


def test_relabelling_the_classes_changes_nothing(layer):
    teacher, change = drawn("class", layer)
    order = torch.tensor([2, 0, 1])
    renamed = dataclasses.replace(teacher, parameters={"shifts": teacher.parameters["shifts"][order.argsort()]})
    assert torch.equal(renamed.change(layer, order[LABELS]), change)


def test_rescaling_tokens_and_prompts_before_the_norm_changes_no_floor():
    plain = backbone(eps=0.0)
    x = random(N, 17, 16, seed=4)
    prompt = va.prompts.create("vpt-deep", plain.config, 4, seed=0).double().eval()
    shares = []
    for scale in (1.0, 7.0):
        layer = OneLayer(plain.blocks[0], scale * x, QUERIES)
        _, change = drawn("lora-q", layer)
        with torch.no_grad():
            prompt.tokens *= scale
        found = floors.gates(layer, floors.prompt_group(layer, prompt, 0))
        columns = floors.readout(found, floors.cells(layer, 4))
        shares.append(floors.floor(columns, found.wanted(layer, change), float(change.square().sum())).share)
    assert shares[0] == pytest.approx(shares[1], rel=1e-9) and shares[0] > 0.01


# --- search -----------------------------------------------------------------------------------------------------------


def test_longer_prompts_are_never_worse_and_searching_helps(layer):
    for name, kind in (("lora-q", "clusters"), ("gate", "queries")):
        _, change = drawn(name, layer)
        found = floor_search.floors_by_length(layer, change, (1, 2, 5, 10), kind, steps=15)
        shares = [f.floor.share for f in found]
        assert [f.keys.shape[1] for f in found] == [1, 2, 5, 10]
        assert all(b <= a * (1 + 1e-12) for a, b in zip(shares, shares[1:], strict=False))
        assert shares[0] < 0.9 * found[0].start
        again = floor_search.static_floor(layer, change, found[-1].keys)
        assert again.share == pytest.approx(shares[-1], rel=1e-12)
    assert floor_search.floors_by_length(layer, change, (1,), kind, steps=200)[0].floor.share < 1e-3  # its own family


def test_padding_keeps_a_prompt_that_was_better(layer, monkeypatch):
    """Where the search for a longer one ends higher, the shorter one with keys that have no mass is kept."""
    _, change = drawn("lora-q", layer)
    honest = floor_search.search

    def worse(layer, change, keys, steps):
        found = honest(layer, change, keys, 0 if keys.shape[1] > 1 else steps)
        return found if keys.shape[1] == 1 else honest(layer, change, 50 * keys, 0)

    monkeypatch.setattr(floor_search, "search", worse)
    short, long = floor_search.floors_by_length(layer, change, (1, 3), steps=10)
    assert long.floor.share == pytest.approx(short.floor.share, rel=1e-12) and long.keys.shape[1] == 3
    weights = floors.gates(layer, KeyGroup(long.keys[None], long.keys[None])).prompt
    assert not weights[..., 1:].any()


def test_keys_without_mass_exist_only_where_queries_lie_on_one_side(layer):
    assert floor_search.massless(layer) is not None
    surrounded = copy.copy(layer)
    surrounded.query = torch.cat([layer.query, -layer.query])
    assert floor_search.massless(surrounded) is None


def test_the_search_follows_the_true_gradient(layer):
    """A search of one step from keys moved by hand along the finite-difference gradient finds the same descent."""
    _, change = drawn("lora-v", layer)
    keys = floor_search.starting_keys(layer, 2, "queries", 0)
    start = floor_search.static_floor(layer, change, keys).share
    found = floor_search.search(layer, change, keys, steps=1)
    direction = (found.keys - keys) / (found.keys - keys).norm()
    slope = (floor_search.static_floor(layer, change, keys + 1e-4 * direction).share - start) / 1e-4
    steepest = []
    for i in range(keys.numel()):
        moved = keys.clone().flatten()
        moved[i] += 1e-4
        steepest.append((floor_search.static_floor(layer, change, moved.view_as(keys)).share - start) / 1e-4)
    assert slope == pytest.approx(-float(torch.tensor(steepest).norm()), rel=1e-2)  # L-BFGS begins along the gradient


# --- any length, any mechanism ----------------------------------------------------------------------------------------


def test_no_length_helps_where_all_images_share_the_query(first):
    for name in ("class", "lora-v", "lora-q"):
        _, change = drawn(name, first)
        proved = floor_bounds.any_length(first, change)
        assert proved.groups == 1 and 0.05 < proved.low <= proved.high and proved.high < 1.01 * proved.low
        found = floor_search.floors_by_length(first, change, (1, 4), "queries", steps=60)
        assert all(proved.low <= f.floor.share for f in found)
        assert found[0].floor.share == pytest.approx(proved.high, rel=1e-3)
    _, linear = drawn("lora-v", first)
    adaptive = given(first, linear, *floors.copies(first, torch.arange(1, 17)))
    assert adaptive.share < 0.5 * floor_bounds.any_length(first, linear).low  # copies of patches are no static prompts
    fitted = floor_fits.fit(backbone(), 0, first, change, "prefix", 4, steps=30, starts=1)
    assert fitted.best >= proved.low


def test_fits_descend_and_find_what_a_prompt_of_their_own_start_has_made(vit, layer):
    _, change = drawn("lora-v", layer)
    for name in ("vpt-deep", "vapt", "prefix"):
        found = floor_fits.fit(vit, 1, layer, change, name, 2, steps=8, starts=2)
        assert (found.shares < found.initial).all() and found.best == found.shares.min()
        with torch.no_grad():
            output = floors.outputs(layer, floors.prompt_group(layer, found.prompt, 1))
        share = float((output - layer.content - change).square().sum() / change.square().sum())
        assert share == pytest.approx(found.best, rel=1e-10)
    prompt = va.prompts.create("vapt", vit.config, 2, seed=5).double()
    with torch.no_grad():
        made = floors.outputs(layer, floors.prompt_group(layer, prompt, 1)) - layer.content
    assert floor_fits.fit(vit, 1, layer, made, "vapt", 2, steps=1, starts=1, seed=5).best < 1e-20


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_with_the_reason(vit, layer):
    _, change = drawn("lora-v", layer)
    with pytest.raises(ValueError, match="teacher"):
        teachers.draw("quadratic", layer)
    with pytest.raises(ValueError, match="give labels"):
        teachers.draw("class", layer)
    with pytest.raises(ValueError, match="expected int64"):
        teachers.draw("class", layer, labels=LABELS[:5])
    with pytest.raises(ValueError, match="drawn for the classes"):
        drawn("class", layer)[0].change(layer, LABELS + 1)
    with pytest.raises(ValueError, match="rank is 99"):
        teachers.draw("lora-v", layer, rank=99)
    with pytest.raises(ValueError, match="energy is -1"):
        teachers.draw("lora-v", layer, energy=-1.0)
    with pytest.raises(ValueError, match="ask for another energy"):
        teachers.draw("rotation", layer, energy=100.0)
    with pytest.raises(ValueError, match="temperature"):
        floors.gates(layer, KeyGroup(random(1, 2, 1, 8), random(1, 2, 1, 8), temperature=torch.ones(1)))
    with pytest.raises(ValueError, match="keys have shape"):
        floors.gates(layer, KeyGroup(random(1, 3, 1, 8), random(1, 3, 1, 8)))
    with pytest.raises(ValueError, match="not finite"):
        floors.gates(layer, KeyGroup(torch.full((1, 2, 1, 8), torch.nan, dtype=torch.float64), random(1, 2, 1, 8)))
    with pytest.raises(ValueError, match="Give more images"):
        floors.floor(random(5, 2, 6), random(5, 2, 8), 1.0)
    with pytest.raises(ValueError, match="wanted has shape"):
        floors.floor(random(9, 2, 6), random(8, 2, 8), 1.0)
    with pytest.raises(ValueError, match="mean nothing"):
        floors.floor(random(9, 2, 6), random(9, 2, 8), 0.0)
    with pytest.raises(ValueError, match="what is read"):
        floors.readout(floors.gates(layer, KeyGroup(random(1, 2, 3, 8), random(1, 2, 3, 8))), random(N, 2, 16))
    with pytest.raises(ValueError, match="queries all differ"):
        floor_bounds.any_length(layer, change)
    with pytest.raises(ValueError, match="rising integers"):
        floor_search.floors_by_length(layer, change, (5, 2))
    with pytest.raises(ValueError, match="kind of start"):
        floor_search.starting_keys(layer, 2, "grid", 0)
    with pytest.raises(ValueError, match="give more images"):
        floor_search.starting_keys(layer, 10_000, "queries", 0)
    with pytest.raises(ValueError, match="expected a block"):
        floor_fits.fit(vit, 7, layer, change, "vapt", 2)
    with pytest.raises(ValueError, match="travel in the sequence"):
        floor_fits.fit(vit, 1, layer, change, "vpt-shallow", 2, steps=1)
