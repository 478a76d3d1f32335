"""What a model family is to the exporter: a network, the keys it expects, and rules as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from samrt.errors import OptionError
from samrt_export.graph import GraphBuilder

Size = tuple[int, int]
Shapes = dict[str, tuple[int, ...]]
Mode = Literal["native", "interpolate", "crop"]
EMBEDDING = "image_embeddings"


@dataclass(frozen=True)
class Frame:
    """The encoder's input frame.

    size: `(S_h, S_w)` in pixels.
    mode: `native`, the checkpoint's own frame; `interpolate`, another one, to which the position
        tables are stretched; `crop`, the upper left part of the checkpoint's own frame, so that
        padding is not encoded.
    whole: `(S_h, S_w)` of the frame that the checkpoint was trained with.
    """

    size: Size
    mode: Mode
    whole: Size

    @property
    def coordinates(self) -> Size:
        """The frame by which prompt coordinates are normalised."""
        return self.whole if self.mode == "crop" else self.size

    def grid(self, stride: int) -> Size:
        """Tokens `(h, w)` of the frame."""
        return self.size[0] // stride, self.size[1] // stride

    def whole_grid(self, stride: int) -> Size:
        """Tokens of the frame that normalises positions."""
        return self.coordinates[0] // stride, self.coordinates[1] // stride


class Network(nn.Module):
    """The three parts under the names that checkpoints use, and the way through the last two.

    Which classes the parts are of is the family's business; its own functions take them apart.
    """

    image_encoder: Any
    prompt_encoder: Any
    mask_decoder: Any

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: nn.Module,
        mask_decoder: nn.Module,
        decode: Callable[..., tuple[Tensor, Tensor]],
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.decode = decode


EmitEncoder = Callable[[GraphBuilder, Network, str], dict[str, str]]
EmitDecoder = Callable[[GraphBuilder, Network, dict[str, tuple[int, ...]]], None]


@dataclass(frozen=True)
class Family:
    """One model family.

    name: as `identify` calls it and the manifest records it.
    title: for people.
    variants: names of its sizes.
    whole: the frame of the published checkpoints.
    default_size: the frame that the family runs at, if its tables are of another one.
    license, intended_use: defaults of the manifest's `source`.
    build: network for a variant and a frame, weights not set (called on the meta device).
    shapes: keys and shapes of a checkpoint of a variant, given its own frame.
    rules: the manifest's `input`, `prompts` and `output`.
    emit_encoder: writes the encoder into a graph; public output name -> tensor.
    emit_decoder: writes the decoder, given the shapes of the encoder's outputs.
    emit_cpu_encoder, emit_cpu_decoder: write their CPU forms (samrt's own operators); `None`:
        there is none.
    adapt: a checkpoint's state dict to the network's, for a frame.
    ignorable: patterns (fnmatch) of keys that are accepted and dropped.
    any_whole: whether checkpoints of other frames than `whole` exist; their tables tell.
    resizable, croppable: whether other frames than the published one make sense.
    needs_base: the checkpoint is an adapter that is merged into another checkpoint.
    """

    name: str
    title: str
    variants: tuple[str, ...]
    whole: Size
    license: str
    intended_use: str
    build: Callable[[str, Frame], Network]
    shapes: Callable[[str, Frame], Shapes]
    rules: Callable[[str, Frame], dict[str, Any]]
    emit_encoder: EmitEncoder
    emit_decoder: EmitDecoder
    adapt: Callable[[Mapping[str, Tensor], str, Frame], dict[str, Tensor]]
    emit_cpu_encoder: EmitEncoder | None = None
    emit_cpu_decoder: EmitDecoder | None = None
    ignorable: tuple[str, ...] = ()
    default_size: Size | None = None
    any_whole: bool = False
    resizable: bool = False
    croppable: bool = False
    multiple: int = 16
    notes: tuple[str, ...] = field(default=())

    def variant_named(self, variant: str | None) -> str:
        """A size of the family, the first where `None`; OptionError for an unknown one."""
        if variant is None:
            return self.variants[0]
        if variant not in self.variants:
            raise OptionError(
                f"{self.title} has no variant {variant!r}: choose one of {', '.join(self.variants)}"
            )
        return variant

    def frame(
        self,
        image_size: Size | None = None,
        crop: Size | None = None,
        whole: Size | None = None,
    ) -> Frame:
        """The frame for an export; `whole` is the checkpoint's own, if not the usual one.

        Raises ValueError where the family does not allow it or the size does not fit.
        """
        own = whole or self.whole
        if image_size is None and crop is None:
            image_size = self.default_size
        if image_size is not None and crop is not None:
            raise ValueError("give either an image size or a crop of the padding, not both")
        if image_size is None and crop is None:
            return Frame(own, "native", own)
        size, mode = (image_size, "interpolate") if image_size else (crop, "crop")
        if size is None or (mode == "interpolate" and size == own):
            return Frame(own, "native", own)
        allowed = self.resizable if mode == "interpolate" else self.croppable
        if not allowed:
            what = "other input sizes" if mode == "interpolate" else "cropping the padding"
            raise ValueError(f"{self.title} does not allow {what}: leave the option out")
        bad = [side for side in size if side < 4 * self.multiple or side % self.multiple]
        if bad:
            raise ValueError(
                f"input size {size[0]}x{size[1]} does not suit {self.title}: each side must be a "
                f"multiple of {self.multiple} and at least {4 * self.multiple}"
            )
        if mode == "crop" and (size[0] > own[0] or size[1] > own[1]):
            raise ValueError(f"crop {size[0]}x{size[1]} is larger than the frame {own[0]}x{own[1]}")
        if mode == "crop" and max(size) != max(own):
            raise ValueError(
                f"crop {size[0]}x{size[1]}: one side must stay {max(own)}, for images keep "
                "their scale in the frame"
            )
        return Frame(size, mode, own)  # type: ignore[arg-type]
