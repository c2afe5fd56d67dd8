"""Memory of large tensors comes back when nobody uses it any longer, and never before."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from poise.kernels.cpu import _memory, _reuse


@pytest.fixture(autouse=True)
def nothing_kept():
    _reuse._FREE.clear()
    yield
    _reuse._FREE.clear()


LARGE = torch.empty(4096, 1024)


def test_it_comes_back_with_the_last_view():
    first = _memory.empty_like(LARGE)
    address, part = first.data_ptr(), first[7:].detach()
    del first
    other = _memory.empty_like(LARGE)
    assert other.data_ptr() != address
    del part
    assert _memory.empty_like(LARGE).data_ptr() == address


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_lent_tensor_is_an_ordinary_one(dtype):
    x = torch.randn(2048, 2048).to(dtype)
    for _ in range(2):  # from the system, then from what came back
        y = _memory.empty_like(x.t())
        assert (y.shape, y.dtype, y.is_contiguous(), y._is_view()) == (x.t().shape, dtype, True, False)
        assert y.data_ptr() % 64 == 0
        y.copy_(x)
        assert torch.equal(pickle.loads(pickle.dumps(y)), x)
        y.requires_grad_().sum().backward()
        del y


def test_only_a_few_blocks_are_kept():
    for size in range(12):
        _memory.empty_like(torch.empty((8 << 20) + size, dtype=torch.uint8))
    assert len(_reuse._FREE) == _reuse._MOST
    too_large = _memory.empty_like(torch.empty(_reuse._LARGEST + 64, dtype=torch.uint8))
    del too_large
    assert all(block.nbytes <= _reuse._LARGEST for block in _reuse._FREE.values())


def test_what_is_too_large_to_keep_is_an_ordinary_tensor_too():
    y = _memory.empty_like(torch.empty(_reuse._LARGEST // 4 + 16))
    assert not y._is_view()
    assert y.data_ptr() % 64 == 0


def test_threads_never_get_the_same_block():
    def work(value):
        for _ in range(20):
            mine = _memory.empty_like(LARGE)
            mine.fill_(value)
            if not bool((mine == value).all()):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
