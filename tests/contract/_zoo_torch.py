"""Models of torch.nn's own blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.contract._zoo import ROWS, Entry, reals


class _Translator(nn.Module):
    """torch's Transformer between two sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.head(self.core(source, target))


class _Encoder(nn.Module):
    """torch's TransformerEncoder, over tokens."""

    def __init__(self, *, norm_first: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


class _Recurrent(nn.Module):
    """A recurrent layer and a head on its last step."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(8, 16, num_layers=2, batch_first=True, dropout=0.1, bidirectional=True)
        self.norm = nn.BatchNorm1d(32)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.rnn(x)[0][:, -1]))


class _AttentionBlock(nn.Module):
    """Attention and a two-layer perceptron, each on a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, dropout=0.1, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm1(x)
        x = x + self.attention(normal, normal, normal, need_weights=False)[0]
        x = x + self.mlp(self.norm2(x))
        return self.head(x.mean(1))


TORCH = (
    Entry("torch-transformer", _Translator, lambda: (torch.randn(ROWS, 5, 16), torch.randn(ROWS, 4, 16))),
    Entry("torch-encoder-post", lambda: _Encoder(norm_first=False), lambda: torch.randint(40, (ROWS, 6))),
    Entry("torch-encoder-pre", lambda: _Encoder(norm_first=True), lambda: torch.randint(40, (ROWS, 6))),
    Entry("torch-lstm", lambda: _Recurrent(nn.LSTM), reals(5, 8)),
    Entry("torch-gru", lambda: _Recurrent(nn.GRU), reals(5, 8)),
    Entry("torch-attention-block", _AttentionBlock, reals(5, 16)),
)
