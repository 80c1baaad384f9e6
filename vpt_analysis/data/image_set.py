"""A set of labelled images in memory: what every source gives."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..vit import ViTConfig
from . import subsets


def normalise(images: Tensor, config: ViTConfig) -> Tensor:
    """uint8 (B, C, h, w) to float32 (B, C, h, w): ``(images / 255 − pixel_mean) / pixel_std``, channel by channel.

    Raises ``TypeError`` for pixels that are not uint8 (already normalised ones, say) and ``ValueError`` where the
    number of channels is not the model's.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"normalise: pixels are {images.dtype}; expected uint8 (0 … 255), not yet normalised")
    if images.ndim != 4 or images.shape[1] != config.channels:
        raise ValueError(f"normalise: images are {tuple(images.shape)}; expected (B, {config.channels}, h, w)")
    mean, std = (
        torch.tensor(v, dtype=torch.float32, device=images.device).view(1, -1, 1, 1)
        for v in (config.pixel_mean, config.pixel_std)
    )
    return images.float().div_(255).sub_(mean).div_(std)  # in place: thousands of images are gigabytes


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images with labels, and the digest that says which.

    ``images`` uint8 (n, C, h, w); ``labels`` int64 (n,), an index into ``class_names``, or −1 where there are no
    classes; ``digest`` sha256 of the source (encoded files, labels, class names, size), for a subset of its parent's
    digest and the selection; ``files`` one name an image, or empty where the source has no names.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    digest: str
    name: str
    files: tuple[str, ...] = ()

    def __post_init__(self):
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise TypeError(
                f"{self.name}: images are {self.images.dtype} {tuple(self.images.shape)}; expected uint8 (n, C, h, w)"
            )
        n, k = len(self.images), len(self.class_names)
        if self.labels.dtype != torch.int64 or self.labels.shape != (n,):
            raise TypeError(
                f"{self.name}: labels are {self.labels.dtype} {tuple(self.labels.shape)}; expected int64 ({n},)"
            )
        if len(self.files) not in (0, n):
            raise ValueError(f"{self.name}: {len(self.files)} file names for {n} images; expected one each, or none")
        if n and (int(self.labels.min()) < (0 if k else -1) or int(self.labels.max()) >= k):
            low, high = int(self.labels.min()), int(self.labels.max())
            expected = f"0 … {k - 1}, as there are {k} classes" if k else "−1, as there are no classes"
            raise ValueError(f"{self.name}: labels go from {low} to {high}; expected {expected}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        (height, width), k = self.images.shape[2:], len(self.class_names)
        return f"<{self.name}: {len(self)} images {width}×{height}, {k} classes, sha256 {self.digest[:12]}>"

    @property
    def counts(self) -> Tensor:
        """Images of each class, int64 (classes,)."""
        return torch.bincount(self.labels[self.labels >= 0], minlength=len(self.class_names))

    def normalised(self, config: ViTConfig) -> Tensor:
        """All images as the model wants them, float32 (n, C, h, w)."""
        return normalise(self.images, config)

    def select(self, indices: Tensor | Sequence[int]) -> ImageSet:
        """The images at ``indices`` (m,), in that order; the set itself where they are all, in its order."""
        indices = torch.as_tensor(indices, dtype=torch.int64)
        if torch.equal(indices, torch.arange(len(self))):
            return self
        picked = hashlib.sha256(f"{self.digest}|select|".encode() + indices.numpy().astype("<i8").tobytes())
        files = tuple(self.files[i] for i in indices.tolist()) if self.files else ()
        return ImageSet(
            self.images[indices], self.labels[indices], self.class_names, picked.hexdigest(), self.name, files
        )

    def subset(
        self,
        *,
        per_class: int | None = None,
        fraction: float | None = None,
        n: int | None = None,
        seed: int = 0,
    ) -> ImageSet:
        """A seeded, stratified part; give exactly one of ``per_class``, ``fraction`` and ``n``.

        Every class stays present. With one seed, a smaller subset lies inside every larger one of the same kind, and
        ``per_class=m`` inside every subset that has m images of each class, so learning curves add images and never
        swap them. ``fraction`` and ``n`` keep the classes' proportions as nearly as whole images, and one of each
        class, allow (Sainte-Laguë apportionment). Images stay in the set's order. The choice depends on seed, label
        and position alone: it is the same with any version of any library.

        Raises ``ValueError`` where a class has too few images or n has no room for every class.
        """
        given = {"per_class": per_class, "fraction": fraction, "n": n}
        given = {key: value for key, value in given.items() if value is not None}
        if len(given) != 1:
            raise TypeError(f"subset: got {sorted(given) or 'nothing'}; give exactly one of per_class, fraction and n")
        if per_class is not None:
            return self.select(subsets.per_class(self.labels, per_class, seed, self.class_names, self.name))
        if fraction is not None:
            return self.select(subsets.of_fraction(self.labels, fraction, seed, self.name))
        return self.select(subsets.of_size(self.labels, n, seed, self.name))

    def describe(self) -> dict:
        """What a result's sidecar should say about its images."""
        return {
            "name": self.name,
            "n": len(self),
            "classes": len(self.class_names),
            "size": list(self.images.shape[2:]),
            "digest": self.digest,
        }
