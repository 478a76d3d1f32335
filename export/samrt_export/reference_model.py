"""A torch network behind samrt's own pre- and postprocessing: the reference of a verification.

``samrt.Predictor(TorchModel(...))`` differs from a loaded bundle in one thing only, who computes
the encoder and the decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from samrt.backends.base import SessionOptions
from samrt.bundle import Bundle
from samrt.errors import BackendError, BundleError
from samrt.manifest import Manifest
from samrt.model import Model, ModelInfo
from samrt.prompts import DecoderInput

__all__ = ["Decode", "Network", "TorchModel"]

_EMBEDDING = "image_embeddings"
Decode = Callable[..., tuple[Tensor, Tensor]]


class Network(Protocol):
    """What is needed of a torch network.

    ``image_encoder`` maps ``(1, 3, S_h, S_w)`` to the embedding ``(1, C, h, w)``, or to a mapping
    of names to such tensors with the embedding first. ``decode`` is called as
    ``decode(prompt_encoder, mask_decoder, embedding, point_coords, point_labels, mask_input,
    has_mask_input)`` with the encoder's result as ``embedding`` and ``None`` for the last two
    where no prompt has a mask; it returns ``(N, M, h, w)`` logits and ``(N, M)`` scores. As an
    attribute of a class it has to be a ``staticmethod``.
    """

    image_encoder: nn.Module
    prompt_encoder: nn.Module
    mask_decoder: nn.Module
    decode: Decode


class TorchModel(Model):
    """A torch network with the surface of :class:`samrt.model.Model`, float32 on the CPU.

    Attributes:
        bundle: the rules of preprocessing and postprocessing; its path is the checkpoint's, and
            its files cannot be opened.
        info: what is running; backend ``torch``.
    """

    def __init__(
        self,
        network: Network,
        manifest: Manifest,
        *,
        checkpoint: str | PathLike[str] = "",
        sha256: str = "",
        threads: int | None = None,
    ) -> None:
        """Wrap a network with its weights loaded; it is put into evaluation mode.

        Args:
            network: the network.
            manifest: its rules; ``artifacts`` may be empty.
            checkpoint: where the weights came from, for reports.
            sha256: of that file, for reports.
            threads: threads of the kernels before and after the network; torch keeps its own.
        """
        self._network: Network | None = network
        for part in (network.image_encoder, network.prompt_encoder, network.mask_decoder):
            part.eval()
        info = ModelInfo(
            name=manifest.name,
            family=manifest.family,
            variant=manifest.variant,
            model_id=f"{manifest.name}@torch-{sha256[:12] or 'unnamed'}",
            sha256=sha256,
            files={},
            path=str(checkpoint),
            precision_requested="fp32",
            precision_effective="fp32",
            decoder_precision="fp32",
            backend_requested="torch",
            backend_effective="torch",
            backend_version=str(torch.__version__),
            threads=SessionOptions(threads=threads).effective_threads,
            license=str(manifest.source.get("license", "unknown")),
            intended_use=str(manifest.source.get("intended_use", "unknown")),
        )
        # Not super().__init__: there are no sessions, and every method that uses them is replaced.
        self.bundle = Bundle(Path(checkpoint), manifest)
        self.info = info

    def run_encoder(self, image: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Encode a preprocessed image ``(1, 3, S_h, S_w)``.

        Returns:
            Name of each output -> read-only float32 array; ``image_embeddings`` is the first.

        Raises:
            BackendError: the result holds NaN or infinity, or the model is closed.
        """
        network = self._opened()
        with torch.inference_mode():
            found = network.image_encoder(torch.tensor(image, dtype=torch.float32))
        maps = found if isinstance(found, Mapping) else {_EMBEDDING: found}
        features = {str(name): self._array(tensor, str(name)) for name, tensor in maps.items()}
        for array in features.values():
            array.flags.writeable = False
        return features

    def run_decoder(
        self, features: Mapping[str, NDArray[np.float32]], prompts: DecoderInput
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decode ``N`` prompts in one call.

        Returns:
            Low-resolution masks ``(N, M, h, w)`` and predicted IoU ``(N, M)``, both float32.

        Raises:
            BackendError: the result holds NaN or infinity, or the model is closed.
            BundleError: the network returns another number of masks than the manifest says.
        """
        network = self._opened()
        maps = {name: torch.tensor(array) for name, array in features.items()}
        embedding: Tensor | dict[str, Tensor] = maps
        if list(maps) == [_EMBEDDING]:
            embedding = maps[_EMBEDDING]
        coords, labels = torch.tensor(prompts.point_coords), torch.tensor(prompts.point_labels)
        mask: Tensor | None = None
        has_mask: Tensor | None = None
        if self.takes_mask_input and prompts.has_mask_input.any():
            mask, has_mask = torch.tensor(prompts.mask_input), torch.tensor(prompts.has_mask_input)
        with torch.inference_mode():
            low, iou = network.decode(
                network.prompt_encoder,
                network.mask_decoder,
                embedding,
                coords,
                labels,
                mask,
                has_mask,
            )
        logits, scores = self._array(low, "low_res_masks"), self._array(iou, "iou_predictions")
        spec = self.bundle.manifest.output
        count = len(prompts.point_coords)
        wanted = (count, spec.num_masks, *spec.low_res_size)
        if logits.shape != wanted or scores.shape != wanted[:2]:
            raise BundleError(
                f"the network returned masks {logits.shape} and scores {scores.shape}, its "
                f"manifest says {wanted} and {wanted[:2]}: the family's description is wrong"
            )
        return logits, scores

    @property
    def takes_mask_input(self) -> bool:
        """Whether the model takes an earlier mask."""
        return self.bundle.manifest.prompts.mask

    def close(self) -> None:
        """Let go of the network; closing twice is fine."""
        self._network = None

    def _opened(self) -> Network:
        if self._network is None:
            raise BackendError(f"{self.info.model_id} is closed: load it again")
        return self._network

    def _array(self, tensor: Tensor, name: str) -> NDArray[np.float32]:
        array = cast(NDArray[np.float32], tensor.to(torch.float32).contiguous().numpy())
        if not np.isfinite(array).all():
            raise BackendError(
                f"{self.info.model_id}: output {name!r} holds NaN or infinity: the checkpoint is "
                "damaged or does not fit the network"
            )
        return array
