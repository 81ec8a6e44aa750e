"""A hypernetwork: small modules that change what attention layers take keys and values from.

For each width of context there is one pair, shared by every attention layer, self or cross, whose
context has that width: k = to_k(h_k(context)), v = to_v(h_v(context)), with
h(x) = x + multiplier * stack(x). B batch, S tokens, D width of the context.

Source: NovelAI's structure and its extensions in the AUTOMATIC1111 web UI.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.modules import activation as torch_activations

from sdft.errors import UserError
from sdft.formats.lazy import LazyTensor
from sdft.models.checkpoint import read
from sdft.models.hypernetwork_file import (
    KEYS,
    SIDES,
    VALUES,
    HypernetworkFile,
    named_tensors,
)
from sdft.models.hypernetwork_layers import NORMAL, Layer, Structure, stack_of
from sdft.streams import seed64

NORMAL_STD = 0.01
"""So small that a new hypernetwork changes next to nothing. Source: NovelAI's initialisation."""


class HypernetworkModule(nn.Module):
    """h(x) = x + multiplier * stack(x) for one width; [B, S, D] in and out."""

    def __init__(self, width: int, structure: Structure, multiplier: float) -> None:
        super().__init__()
        self.multiplier = multiplier
        self.linear = nn.Sequential(
            *(_layer(layer, structure.activation) for layer in stack_of(structure, width))
        )

    def forward(self, context_BSD: Tensor) -> Tensor:
        if self.multiplier == 0:
            return context_BSD
        changed_BSD: Tensor = self.linear(context_BSD)
        # Under autocast the stack answers in another dtype than it was asked in.
        return context_BSD + (self.multiplier * changed_BSD).to(context_BSD.dtype)


def _layer(layer: Layer, activation: str) -> nn.Module:
    if layer.kind == "linear":
        return nn.Linear(layer.width_in, layer.width_out)
    if layer.kind == "norm":
        return nn.LayerNorm(layer.width_out)
    if layer.kind == "dropout":
        return nn.Dropout(layer.rate)
    # The web UI's swish is torch's hard one; the other names are those of torch's classes.
    wanted = "hardswish" if activation == "swish" else activation
    name = next(one for one in torch_activations.__all__ if one.lower() == wanted)
    made: nn.Module = getattr(torch_activations, name)()
    return made


class Hypernetwork(nn.Module):
    """The pairs of all widths; weights are named `<width>.k.linear.0.weight`."""

    def __init__(
        self, widths: Sequence[int], structure: Structure, *, multiplier: float = 1.0
    ) -> None:
        super().__init__()
        assert not structure.mistakes(), structure.mistakes()
        self.structure = structure
        for width in sorted(widths):
            pair = {side: HypernetworkModule(width, structure, multiplier) for side in SIDES}
            self.add_module(str(width), nn.ModuleDict(pair))

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(int(name) for name, _ in self.named_children())

    def pair(self, width: int) -> tuple[HypernetworkModule, HypernetworkModule] | None:
        """Return the modules for keys and for values, or None for a width that it has not."""
        found: Any = self._modules.get(str(width))
        return None if found is None else (found[KEYS], found[VALUES])


def new_hypernetwork(
    widths: Sequence[int],
    structure: Structure,
    *,
    initialization: str,
    multiplier: float = 1.0,
    seed: int,
) -> Hypernetwork:
    """Return a hypernetwork with first weights; the same seed gives the same ones.

    Raises: UserError where a factor of the structure leaves a layer of some width empty.
    """
    for width in widths:
        if any(layer.width_out < 1 for layer in stack_of(structure, width)):
            raise UserError(
                what=f"a layer of the modules for width {width} would have no values",
                where="layer_structure",
                fix="use larger numbers",
            )
    # The generator of the process is left as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed64(seed, "hypernetwork"))
        network = Hypernetwork(widths, structure, multiplier=multiplier)
        for module in network.modules():
            _initialise(module, initialization, structure.activation)
    return network


def _initialise(module: nn.Module, initialization: str, activation: str) -> None:
    if isinstance(module, nn.LayerNorm):
        # Its own start, 1, would make noise of size 1 of whatever comes in.
        if initialization == NORMAL:
            nn.init.normal_(module.weight, std=NORMAL_STD)
        return
    if not isinstance(module, nn.Linear):
        return
    slope: Any = "leaky_relu" if activation == "leakyrelu" else "relu"
    start: dict[str, Callable[[Tensor], object]] = {
        NORMAL: lambda weight: nn.init.normal_(weight, std=NORMAL_STD),
        "XavierUniform": nn.init.xavier_uniform_,
        "XavierNormal": nn.init.xavier_normal_,
        "KaimingUniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity=slope),
        "KaimingNormal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity=slope),
    }
    start[initialization](module.weight)
    nn.init.zeros_(module.bias)


def load_hypernetwork(
    file: HypernetworkFile,
    *,
    widths: Sequence[int] | None = None,
    multiplier: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Hypernetwork:
    """Return a file's modules, all of them or those of `widths`, in evaluation mode."""
    pairs = {width: pair for width, pair in file.pairs.items() if widths is None or width in widths}
    network = Hypernetwork(list(pairs), file.fields.structure, multiplier=multiplier)
    tensors: Mapping[str, LazyTensor] = named_tensors(pairs)
    network.load_state_dict({name: read(tensor, dtype) for name, tensor in tensors.items()})
    return network.to(dtype).eval().requires_grad_(False)


def context_widths(unet: UNet2DConditionModel) -> tuple[int, ...]:
    """Return the widths of the contexts of all attention layers: 320, 640, 768, 1280 in SD 1.x."""
    return tuple(sorted({_width_of(layer) for layer in _attention_layers(unet).values()}))


def usable_widths(file: HypernetworkFile, unet: UNet2DConditionModel) -> tuple[int, ...]:
    """Return the widths of a file that this U-Net has.

    Raises: UserError where it was made for another family: it holds widths that the U-Net has not,
        and none for the width of the text.
    """
    known = context_widths(unet)
    used = tuple(width for width in file.widths if width in known)
    foreign = [width for width in file.widths if width not in known]
    text_width = int(unet.config.cross_attention_dim)
    if not used or (foreign and text_width not in used):
        raise UserError(
            what=f"this hypernetwork has modules for the widths {_listed(file.widths)}, and the"
            f" model's attention layers have {_listed(known)}",
            where=str(file.path),
            fix="use it with the kind of model that it was trained on: 768 is SD 1.x, 1024 SD 2.x",
        )
    return used


def apply_hypernetworks(unet: UNet2DConditionModel, networks: Sequence[Hypernetwork]) -> None:
    """Put hypernetworks between contexts and every attention layer, one after the other.

    The attention processors of the U-Net stay what they are; each is given a layer whose `to_k`
    and `to_v` begin with the modules. Weights of the U-Net keep their names and values.
    """
    for layer in _attention_layers(unet).values():
        pairs = [network.pair(_width_of(layer)) for network in networks]
        keys: list[nn.Module] = [pair[0] for pair in pairs if pair is not None]
        values: list[nn.Module] = [pair[1] for pair in pairs if pair is not None]
        if keys:
            inner = layer.processor
            if isinstance(inner, HypernetworkAttention):
                # Of an earlier call; the new ones come behind.
                keys, values = [*inner.keys, *keys], [*inner.values, *values]
                inner = inner.inner
            layer.set_processor(HypernetworkAttention(inner, layer, keys, values))


class HypernetworkAttention:
    """An attention processor that lets another one work on changed contexts."""

    def __init__(
        self,
        inner: Any,
        layer: Attention,
        keys: Sequence[nn.Module],
        values: Sequence[nn.Module],
    ) -> None:
        self.inner = inner
        self.keys = tuple(keys)
        self.values = tuple(values)
        self._seen = _SeenLayer(layer, keys, values)

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **others: Any,
    ) -> Tensor:
        assert attn is self._seen.layer, "a processor belongs to one layer"
        changed: Tensor = self.inner(
            self._seen,
            hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            attention_mask=attention_mask,
            **others,
        )
        return changed


class _SeenLayer:
    """An attention layer as its processor sees it: all its own but `to_k` and `to_v`."""

    def __init__(
        self, layer: Attention, keys: Sequence[nn.Module], values: Sequence[nn.Module]
    ) -> None:
        self.layer = layer
        self._keys = tuple(keys)
        self._values = tuple(values)

    def to_k(self, context_BSD: Tensor) -> Tensor:
        projected: Tensor = self.layer.to_k(_through(self._keys, context_BSD))
        return projected

    def to_v(self, context_BSD: Tensor) -> Tensor:
        projected: Tensor = self.layer.to_v(_through(self._values, context_BSD))
        return projected

    def __getattr__(self, name: str) -> Any:
        # While it is copied it has no layer yet.
        if name == "layer" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.layer, name)


def _through(modules: Sequence[nn.Module], context_BSD: Tensor) -> Tensor:
    for module in modules:
        context_BSD = module(context_BSD)
    return context_BSD


def _attention_layers(unet: UNet2DConditionModel) -> dict[str, Attention]:
    return {name: one for name, one in unet.named_modules() if isinstance(one, Attention)}


def _width_of(layer: Attention) -> int:
    return int(layer.to_k.in_features)


def _listed(widths: Sequence[int]) -> str:
    return ", ".join(map(str, widths))


class RandomPasses:
    """Gives each training pass of a network with dropout its own random numbers.

    The numbers follow from the seed and the number of the pass, so a resumed run draws the same.
    """

    def __init__(self, network: nn.Module, *, seed: int, rank: int = 0) -> None:
        """`rank` is the number of this process among several, which draw other numbers each."""
        self._network = network
        self._seed = seed
        self._of_process = (rank,) if rank else ()
        self.num_passes = 0

    def before(self, unet: nn.Module) -> None:
        """Begin a pass whenever the U-Net is called while the network is in training."""
        unet.register_forward_pre_hook(self._begin)

    def _begin(self, unet: nn.Module, inputs: object) -> None:
        if self._network.training:
            torch.manual_seed(
                seed64(self._seed, "hypernetwork pass", self.num_passes, *self._of_process)
            )
            self.num_passes += 1
