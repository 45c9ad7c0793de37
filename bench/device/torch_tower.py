"""The same tower in PyTorch, with the same weights, eager or compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.export.tower import Attention, ImageTower, Linear, Mlp, Norm

_WARM = 3  # calls before a capture: libraries allocate lazily


class TorchTower:
    """A SigLIP image tower as PyTorch's users write it: fused attention, half precision on a GPU.

    ``compile`` compiles the block, which all blocks share, and captures the whole as a CUDA graph per batch size: the
    speed of compiling the whole, in a fraction of the time.
    """

    def __init__(self, tower: ImageTower, device: str) -> None:
        import torch

        from overflight.export.tower import ProbePool

        self._torch, self._device, self._tower = torch, device, tower
        self._type = torch.float16 if device == "cuda" else torch.float32
        encoder, pool = tower.encoder, tower.encoder.pool
        self._patches = self._linear(tower.patches)
        self._positions = self._array(encoder.positions.read())
        self._blocks = [
            (self._norm(one.norm1), self._attention(one.attention), self._norm(one.norm2), self._mlp(one.mlp))
            for one in encoder.blocks
        ]
        self._norm_after = self._norm(encoder.norm)
        assert isinstance(pool, ProbePool)
        self._head = (self._attention(pool.attention), self._norm(pool.norm), self._mlp(pool.mlp))
        self._probe = self._array(pool.probe.read())
        self._run_block: Any = _block
        self._graphs: dict[int, Any] = {}
        self._compiled = False

    def compile(self, backend: str = "inductor") -> None:
        """Compile at the next call of each batch size."""
        self._run_block = self._torch.compile(_block, dynamic=False, backend=backend)
        self._compiled = True

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed uint8 RGB ``[N, S, S, 3]``: to the device, through the tower, and back."""
        with self._torch.inference_mode():
            given = self._torch.from_numpy(frames).to(self._device)
            found = self._replayed(given) if self._compiled and self._device == "cuda" else self._forward(given)
            answer: NDArray[np.float32] = found.float().cpu().numpy()
            return answer

    def _replayed(self, given: Any) -> Any:
        if len(given) not in self._graphs:
            self._graphs[len(given)] = self._captured(given.clone())
        graph, source, target = self._graphs[len(given)]
        source.copy_(given)
        graph.replay()
        return target

    def _captured(self, source: Any) -> Any:
        cuda = self._torch.cuda
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            for _ in range(_WARM):
                self._forward(source)
        cuda.current_stream().wait_stream(side)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            target = self._forward(source)
        return graph, source, target

    def _forward(self, frames: Any) -> Any:
        functional, tower, pixels = self._torch.nn.functional, self._tower, self._tower.pixels
        across = tower.side // tower.patch
        x = (frames.to(self._type) * pixels.rescale - pixels.mean[0]) / pixels.std[0]
        x = x.reshape(-1, across, tower.patch, across, tower.patch, 3).permute(0, 1, 3, 2, 4, 5)
        x = functional.linear(x.reshape(len(frames), across * across, -1), *self._patches) + self._positions
        for block in self._blocks:
            x = self._run_block(x, block)
        x = _normed(x, self._norm_after)
        attention, norm, mlp = self._head
        x = _attended(self._probe.expand(len(frames), 1, -1), x, attention)[:, 0]
        x = x + _fed(_normed(x, norm), mlp)
        return functional.normalize(x.float(), dim=-1)

    def _array(self, values: NDArray[np.float32]) -> Any:
        return self._torch.from_numpy(np.ascontiguousarray(values)).to(self._device, self._type)

    def _linear(self, one: Linear) -> Any:
        assert one.bias is not None
        return self._array(one.weight.read().T), self._array(one.bias.read())

    def _norm(self, one: Norm) -> Any:
        return self._array(one.scale.read()), self._array(one.shift.read()), one.epsilon

    def _attention(self, one: Attention) -> Any:
        return (*(self._linear(part) for part in (one.query, one.key, one.value, one.output)), one.heads)

    def _mlp(self, one: Mlp) -> Any:
        return self._linear(one.up), self._linear(one.down)


def _block(x: Any, block: Any) -> Any:
    norm1, attention, norm2, mlp = block
    normed = _normed(x, norm1)
    x = x + _attended(normed, normed, attention)
    return x + _fed(_normed(x, norm2), mlp)


def _normed(x: Any, norm: Any) -> Any:
    from torch.nn.functional import layer_norm

    scale, shift, epsilon = norm
    return layer_norm(x, scale.shape, scale, shift, epsilon)


def _attended(asking: Any, asked: Any, attention: Any) -> Any:
    from torch.nn.functional import linear, scaled_dot_product_attention

    query, key, value, output, heads = attention
    parts = (linear(asking, *query), linear(asked, *key), linear(asked, *value))
    split = [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts]
    return linear(scaled_dot_product_attention(*split).transpose(1, 2).flatten(2), *output)


def _fed(x: Any, mlp: Any) -> Any:
    from torch.nn.functional import gelu, linear

    up, down = mlp
    return linear(gelu(linear(x, *up), approximate="tanh"), *down)
