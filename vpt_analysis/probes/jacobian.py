r"""The Jacobian of a method's outputs with respect to its parameters, on given images, in rows never all held.

For n images, E outputs an image and p trained scalars, :math:`J \in \mathbb R^{nE \times p}`. A row is a backward pass
of one image. ``Jacobian.rows`` gives every image parameters of its own (equal ones), so that one ordinary backward pass
yields a row of each image of a batch; ``naive`` is the plain loop over outputs that it is tested against.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..baselines.base import twin
from ..cost import Method
from ..fits import check_method
from ..members import in_evaluation
from ..vit import VisionTransformer

Outputs = Callable[[Tensor], Tensor]


def cls_token(tokens: Tensor) -> Tensor:
    """The CLS token after the last norm: tokens (B, N, d) to (B, d)."""
    return tokens[:, 0]


class Encoder(nn.Module):
    """Images to outputs (B, E), with the method and the outputs as submodules and the backbone as none."""

    def __init__(self, vit: VisionTransformer, method: Method, outputs: Outputs):
        super().__init__()
        self.method, self.outputs = method, outputs
        unchecked = twin(vit, {})  # the images are checked once, outside; torch.vmap cannot look at their values
        unchecked.check_images = lambda images: None
        self.__dict__["vit"] = unchecked

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs(self.method.encode(self.vit, images))


class Jacobian:
    """J of ``method`` on ``images`` (n, C, h, w), dropout off; the method's trained parameters in their own order.

    ``outputs`` maps content tokens (B, N, d) to (B, E), image by image: a function, or a module (a classifier's
    weights are not trained here); the CLS token where it is None. ``batch`` images are in memory at a time. ``inputs``
    is n, ``outputs`` E, ``parameters`` p.

    Raises ``TypeError`` for what is no method, or in half precision, where rounding hides ranks; ``ValueError`` for a
    method with nothing to train, outputs of another shape, or values that are not finite.
    """

    def __init__(
        self, vit: VisionTransformer, method: Method, images: Tensor, outputs: Outputs | None = None, batch: int = 32
    ):
        check_method(method)
        method.check_fits(vit)
        vit.check_images(images)
        if vit.patch.weight.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"the backbone is {vit.patch.weight.dtype}; Jacobians need float32 or float64: vit.float()")
        if len(images) == 0 or not isinstance(batch, int) or batch < 1:
            raise ValueError(f"{len(images)} images in batches of {batch!r}; expected at least one of both")
        names = [name for name, p in method.named_parameters() if p.requires_grad and p.numel()]
        if not names:
            raise ValueError(
                f"{method.name} has no parameters to train, so there is no Jacobian; choose another method"
            )
        self.vit, self.method, self.images, self.batch = vit, method, images, batch
        self.read = cls_token if outputs is None else outputs
        self.encoder = Encoder(vit, method, self.read)
        self.state = {f"method.{name}": method.get_parameter(name).detach() for name in names}
        self.sizes = {name: p.numel() for name, p in self.state.items()}
        self.inputs, self.parameters = len(images), sum(self.sizes.values())
        with torch.no_grad(), in_evaluation(method):
            found = self.encoder(images[:1])
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 1 or found.shape[1] < 1:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"outputs of one image are {shape}; expected a tensor (1, E): outputs=vit.pool, for example"
            )
        self.outputs = found.shape[1]

    def rows(self, functionals: Tensor | None = None, names: list[str] | None = None) -> Iterator[tuple[int, Tensor]]:
        """Batches of rows with the number of their first image: (b, m, p), of the model's dtype.

        Row k of image i is :math:`f_k^\\top J_i`, ``functionals`` f (m, E), or (n, m, E) with
        its own for every image; all outputs where it is None. ``names``
        (of ``sizes``) are the parameters whose columns are given, all of them by default.
        """
        names = list(self.sizes) if names is None else names
        device = self.images.device
        eye = torch.eye(self.outputs, dtype=self.images.dtype, device=device)
        functionals = eye if functionals is None else functionals.to(eye)
        for start in range(0, self.inputs, self.batch):
            images = self.images[start : start + self.batch]
            own = functionals[start : start + len(images)] if functionals.ndim == 3 else functionals[None]
            yield start, self._rows(images, own.expand(len(images), -1, -1), names, start)

    def _rows(self, images: Tensor, functionals: Tensor, names: list[str], start: int) -> Tensor:
        b = len(images)
        leaves = {name: self.state[name].expand(b, *self.state[name].shape).clone() for name in self.sizes}
        wanted = [leaves[name].requires_grad_() for name in names]
        with torch.enable_grad(), in_evaluation(self.method), sdpa_kernel(SDPBackend.MATH):
            out = self._encode(leaves, images)
            check_finite(out, "outputs", start)
            found = out.new_zeros(b, functionals.shape[1], sum(self.sizes[name] for name in names))
            for k in range(functionals.shape[1] if out.requires_grad else 0):
                grads = torch.autograd.grad(out, wanted, functionals[:, k], retain_graph=True, allow_unused=True)
                at = 0
                for name, grad in zip(names, grads, strict=True):
                    if grad is not None:
                        found[:, k, at : at + self.sizes[name]] = grad.flatten(1)
                    at += self.sizes[name]
        check_finite(found, "derivatives", start)
        return found

    def _encode(self, leaves: dict[str, Tensor], images: Tensor) -> Tensor:
        """Outputs (b, E), every image with its own parameters."""
        if len(images) == 1:
            return functional_call(self.encoder, {name: p[0] for name, p in leaves.items()}, (images,))
        one = torch.vmap(lambda state, image: functional_call(self.encoder, state, (image[None],))[0])
        try:
            return one(leaves, images)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError) as error:
            raise ValueError(
                f"torch.vmap cannot batch {self.method.name}: {error}\nTake images one by one (batch=1), or write the "
                f"method in operations that it can"
            ) from error

    def gram_product(self, vector: Tensor) -> Tensor:
        """:math:`J^\\top J v` for v (p,), by a forward and a reverse derivative a batch."""
        parts = vector.to(self.images).split(list(self.sizes.values()))
        tangents = {n: v.view(self.state[n].shape) for (n, v) in zip(self.sizes, parts, strict=True)}
        total = torch.zeros_like(vector)
        with in_evaluation(self.method), sdpa_kernel(SDPBackend.MATH):
            for start in range(0, self.inputs, self.batch):
                images = self.images[start : start + self.batch]

                def encode(state: dict[str, Tensor], images: Tensor = images) -> Tensor:
                    return functional_call(self.encoder, state, (images,))

                _, moved = torch.func.jvp(encode, (self.state,), (tangents,))
                (back,) = torch.func.vjp(encode, self.state)[1](moved)
                total += torch.cat([back[name].flatten() for name in self.sizes]).to(total)
        check_finite(total[None], "derivatives", 0)
        return total

    def groups(self, largest: int) -> list[list[str]]:
        """Parameter names in groups of at most ``largest`` scalars, a larger tensor by itself."""
        found: list[list[str]] = []
        room = 0
        for name, size in self.sizes.items():
            if size > room:
                found.append([])
                room = largest
            found[-1].append(name)
            room -= size
        return found

    def rounding(self, functionals: Tensor | None = None, sample: int = 3) -> float:
        r"""Estimate of :math:`\|J_{computed} - J\|_F`, an upper estimate of what rounding does to a singular value.

        The first ``sample`` images are taken in float32 and in float64; the squared difference is scaled to n images,
        and for a float64 model by the ratio of the two machine precisions. An estimate, not a bound: it supposes that
        the sample is like the rest.
        """
        images = self.images[:sample]
        single, double = (self._as(dtype, images) for dtype in (torch.float32, torch.float64))
        if functionals is not None and functionals.ndim == 3:
            functionals = functionals[:sample]
        square = 0.0
        for (_, a), (_, b) in zip(single.rows(functionals), double.rows(functionals), strict=True):
            square += float((a.double() - b).square().sum())
        eps = torch.finfo(self.images.dtype).eps / torch.finfo(torch.float32).eps
        return math.sqrt(square * self.inputs / len(images)) * eps

    def _as(self, dtype: torch.dtype, images: Tensor) -> Jacobian:
        read = copy.deepcopy(self.read).to(dtype) if isinstance(self.read, nn.Module) else self.read
        vit, method = (copy.deepcopy(m).to(dtype) for m in (self.vit, self.method))
        return Jacobian(vit, method, images.to(dtype), read, self.batch)


def check_finite(x: Tensor, what: str, start: int) -> None:
    bad = (~torch.isfinite(x)).flatten(1).any(1).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"{what} of images {[start + int(i) for i in bad[:8]]} are NaN or infinite; look at the parameters of the "
            f"method and at the outputs that were asked for"
        )


def naive(jacobian: Jacobian) -> Tensor:
    """J whole, (n, E, p), by one autograd call an output and image: the reference."""
    parameters = [jacobian.method.get_parameter(name.removeprefix("method.")) for name in jacobian.sizes]
    found = torch.zeros(jacobian.inputs, jacobian.outputs, jacobian.parameters).to(jacobian.images)
    with torch.enable_grad(), in_evaluation(jacobian.method):
        for i, image in enumerate(jacobian.images):
            out = jacobian.read(jacobian.method.encode(jacobian.vit, image[None]))[0]
            for e, value in enumerate(out):
                grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
                pairs = zip(grads, parameters, strict=True)
                found[i, e] = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])
    return found
