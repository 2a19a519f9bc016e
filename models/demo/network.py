"""A llama-architecture network in plain torch: RMSNorm, rotary positions, grouped queries, SwiGLU, tied output."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of the network.  A head of 32 lets llama.cpp keep its cache in q8_0."""

    vocabulary: int
    width: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 2
    inner: int = 512
    head: int = 32
    context: int = 2048
    rope_base: float = 10000.0
    epsilon: float = 1e-5


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions on neighbouring pairs, as llama.cpp does for this architecture."""
    even, odd = heads[..., 0::2], heads[..., 1::2]
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1).flatten(-2)


class Block(nn.Module):
    """Attention, then feed-forward, each behind its norm and added to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.attn_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.ffn_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.attn_q = nn.Linear(shape.width, shape.heads * shape.head, bias=False)
        self.attn_k = nn.Linear(shape.width, shape.kv_heads * shape.head, bias=False)
        self.attn_v = nn.Linear(shape.width, shape.kv_heads * shape.head, bias=False)
        self.attn_output = nn.Linear(shape.heads * shape.head, shape.width, bias=False)
        self.ffn_gate = nn.Linear(shape.width, shape.inner, bias=False)
        self.ffn_up = nn.Linear(shape.width, shape.inner, bias=False)
        self.ffn_down = nn.Linear(shape.inner, shape.width, bias=False)

    def attend(self, stream: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        rows, length, _ = stream.shape
        shape = self.shape
        query = rotate(self.attn_q(stream).view(rows, length, shape.heads, shape.head), cosine, sine)
        key = rotate(self.attn_k(stream).view(rows, length, shape.kv_heads, shape.head), cosine, sine)
        value = self.attn_v(stream).view(rows, length, shape.kv_heads, shape.head)
        shared = shape.heads // shape.kv_heads
        # Written out: torch's fused kernel takes twice as long for so short sequences on a CPU.
        query, value = query.transpose(1, 2), value.repeat_interleave(shared, 2).transpose(1, 2)
        key = key.repeat_interleave(shared, 2).permute(0, 2, 3, 1)
        future = torch.full((length, length), -torch.inf).triu(1)
        weights = torch.softmax((query * shape.head**-0.5) @ key + future, -1)
        mixed = weights.to(value.dtype) @ value
        return self.attn_output(mixed.transpose(1, 2).reshape(rows, length, shape.heads * shape.head))

    def forward(self, stream: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        stream = stream + self.attend(self.attn_norm(stream), cosine, sine)
        normed = self.ffn_norm(stream)
        return stream + self.ffn_down(functional.silu(self.ffn_gate(normed)) * self.ffn_up(normed))


class Network(nn.Module):
    """Token ids in, last hidden states out; `logits` turns the chosen ones into scores."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.start()
        speeds = shape.rope_base ** (-torch.arange(0, shape.head, 2) / shape.head)
        angles = torch.outer(torch.arange(shape.context), speeds)[None, :, None]
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def start(self) -> None:
        for weight in self.parameters():
            if weight.dim() > 1:
                spread = 0.02 if weight is self.embedding.weight else 0.7 / math.sqrt(weight.shape[1])
                nn.init.normal_(weight, 0.0, spread)

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        stream = self.embedding(ids)
        for block in self.blocks:
            stream = block(stream, self.cosine[:, :length], self.sine[:, :length])
        return self.norm(stream)

    def logits(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.embedding.weight)

    def size(self) -> int:
        """The number of parameters."""
        return sum(weight.numel() for weight in self.parameters())
