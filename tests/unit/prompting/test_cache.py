"""The embedding cache: memory limit, order of eviction, single flight, disk tier."""

from __future__ import annotations

import os
import threading
from dataclasses import fields, replace

import diskcache
import pytest
import torch

from causal_sam.errors import InputError
from causal_sam.prompting import EmbeddingCache
from causal_sam.prompting.cache import EmbeddingKey
from causal_sam.sam import Embedding

THREADS = 8


def key(index: int) -> EmbeddingKey:
    return EmbeddingKey("volume", 2, index, (256, 256), (-160.0, 240.0), "encoder", "base")


def embedding(value: float = 0.0, features: int = 100, skips: tuple[int, ...] = (50, 25)) -> Embedding:
    """700 bytes by default."""
    return Embedding(torch.full((features,), value), tuple(torch.full((size,), value) for size in skips))


class Compute:
    """Counts its calls."""

    def __init__(self, result: Embedding) -> None:
        self.calls = 0
        self.result = result

    def __call__(self) -> Embedding:
        self.calls += 1
        return self.result


def test_computes_once_and_returns_the_same_values():
    cache = EmbeddingCache(10_000)
    compute = Compute(embedding(3.0))
    first = cache.get_or_compute(key(0), compute)
    second = cache.get_or_compute(key(0), compute)
    assert compute.calls == 1
    assert torch.equal(first.features, torch.full((100,), 3.0))
    assert second is first


@pytest.mark.parametrize("field", [field.name for field in fields(EmbeddingKey)])
def test_every_field_of_the_key_counts(field):
    changed = {"axis": 1, "index": 9, "geometry": (256, 255), "window": (0.0, 1.0)}.get(field, "other")
    cache = EmbeddingCache(10_000)
    cache.get_or_compute(key(0), Compute(embedding()))
    other = Compute(embedding())
    cache.get_or_compute(replace(key(0), **{field: changed}), other)
    assert other.calls == 1
    assert key(0).digest() != replace(key(0), **{field: changed}).digest()


def test_memory_limit_counts_features_and_skips():
    cache = EmbeddingCache(700 * 3)
    for index in range(10):
        cache.get_or_compute(key(index), Compute(embedding()))
        assert cache.nbytes == 700 * min(index + 1, 3)
        assert len(cache) == min(index + 1, 3)


def test_limit_holds_for_views_of_larger_tensors():
    """A view keeps its whole base alive: the cache must hold its own, small copy."""
    base = torch.zeros(1000, 100)
    cache = EmbeddingCache(10_000)
    kept = cache.get_or_compute(key(0), Compute(Embedding(base[3], (base[4, :50],))))
    assert [tensor.untyped_storage().nbytes() for tensor in (kept.features, *kept.skips)] == [400, 200]


def test_least_recently_used_goes_first():
    cache = EmbeddingCache(700 * 3)
    for index in range(3):
        cache.get_or_compute(key(index), Compute(embedding()))
    cache.get_or_compute(key(0), Compute(embedding()))
    cache.get_or_compute(key(3), Compute(embedding()))
    assert [key(index) in cache for index in range(4)] == [True, False, True, True]


def test_embedding_larger_than_the_limit_is_handed_out_but_not_kept():
    cache = EmbeddingCache(699)
    compute = Compute(embedding(1.0))
    assert cache.get_or_compute(key(0), compute).nbytes == 700
    assert cache.nbytes == 0
    cache.get_or_compute(key(0), compute)
    assert compute.calls == 2


def in_threads(work) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_concurrent_callers_compute_once():
    cache = EmbeddingCache(10_000)
    start = threading.Barrier(THREADS)
    others_asked = threading.Event()
    computed, results = [], []

    def compute() -> Embedding:
        computed.append(1)
        assert others_asked.wait(30)
        return embedding(5.0)

    def work(number: int) -> None:
        start.wait(30)
        if number == 0:
            threading.Timer(0.05, others_asked.set).start()
        results.append(cache.get_or_compute(key(0), compute))

    in_threads(work)
    assert len(computed) == 1
    assert len(results) == THREADS
    assert all(result is results[0] for result in results)


def test_different_keys_do_not_wait_for_each_other():
    """Two computations that each wait for the other to have begun can only end if both run at once."""
    cache = EmbeddingCache(10_000)
    both_run = threading.Barrier(2)

    def compute() -> Embedding:
        both_run.wait(30)
        return embedding()

    def work(number: int) -> None:
        if number < 2:
            cache.get_or_compute(key(number), compute)

    in_threads(work)
    assert len(cache) == 2


def test_failure_releases_all_waiters_and_is_tried_again():
    cache = EmbeddingCache(10_000)
    begun, fail = threading.Event(), threading.Event()
    errors = []

    def compute() -> Embedding:
        begun.set()
        assert fail.wait(30)
        raise RuntimeError("out of memory")

    def work(number: int) -> None:
        if number:
            assert begun.wait(30)
            if number == THREADS - 1:
                threading.Timer(0.05, fail.set).start()
        try:
            cache.get_or_compute(key(0), compute)
        except RuntimeError as error:
            errors.append(str(error))

    in_threads(work)
    assert errors == ["out of memory"] * THREADS
    assert len(cache) == 0
    assert cache.get_or_compute(key(0), Compute(embedding(2.0))).features[0] == 2.0


def test_many_threads_on_a_small_cache_stay_within_the_limit():
    cache = EmbeddingCache(700 * 2)
    wrong = []

    def work(number: int) -> None:
        for step in range(200):
            index = (number * 7 + step) % 5
            found = cache.get_or_compute(key(index), lambda: embedding(float(index)))  # noqa: B023
            if found.features[0] != index or cache.nbytes > 1400:
                wrong.append((number, step))

    in_threads(work)
    assert wrong == []


def test_disk_tier_outlives_the_cache(tmp_path):
    first = EmbeddingCache(10_000, tmp_path)
    original = Embedding(torch.randn(1, 8, 4, 4), (torch.randn(1, 2, 8, 8), torch.randn(1, 4, 6, 6)))
    first.get_or_compute(key(0), Compute(original))
    first.get_or_compute(key(1), Compute(Embedding(torch.ones(3))))
    first.close()
    second = EmbeddingCache(10_000, tmp_path)
    unused = Compute(embedding())
    found = second.get_or_compute(key(0), unused)
    assert torch.equal(found.features, original.features)
    assert all(torch.equal(a, b) for a, b in zip(found.skips, original.skips, strict=True))
    assert second.get_or_compute(key(1), unused).skips == ()
    assert unused.calls == 0
    assert second.nbytes == original.nbytes + 12
    second.close()


def test_evicted_embedding_comes_back_from_disk(tmp_path):
    cache = EmbeddingCache(700, tmp_path)
    for index in range(3):
        cache.get_or_compute(key(index), Compute(embedding(float(index))))
    unused = Compute(embedding())
    assert cache.get_or_compute(key(0), unused).features[0] == 0.0
    assert unused.calls == 0
    cache.close()


def test_disk_tier_keeps_its_limit(tmp_path):
    limit = 1_000_000
    cache = EmbeddingCache(0, tmp_path, max_disk_bytes=limit)
    for index in range(60):
        cache.get_or_compute(key(index), Compute(embedding(features=10_000)))
    newest = Compute(embedding())
    cache.get_or_compute(key(59), newest)
    assert newest.calls == 0
    cache.close()
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.val")) <= limit


class Payload:
    """Would make a folder when unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_manipulated_disk_runs_no_code_and_is_computed_again(tmp_path):
    folder = tmp_path / "cache"
    with diskcache.Cache(str(folder)) as raw:
        raw[key(0).digest()] = Payload(tmp_path / "ran")
        raw[key(1).digest()] = b"not an embedding"
    cache = EmbeddingCache(10_000, folder)
    for index in range(2):
        compute = Compute(embedding(7.0))
        assert cache.get_or_compute(key(index), compute).features[0] == 7.0
        assert compute.calls == 1
    assert not (tmp_path / "ran").exists()
    cache.close()


def test_lost_file_on_disk_is_computed_again(tmp_path):
    cache = EmbeddingCache(0, tmp_path)
    cache.get_or_compute(key(0), Compute(embedding(features=50_000)))
    for path in tmp_path.rglob("*.val"):
        path.unlink()
    compute = Compute(embedding(1.0))
    assert cache.get_or_compute(key(0), compute).features[0] == 1.0
    assert compute.calls == 1
    cache.close()


def test_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="writable folder"):
        EmbeddingCache(1000, tmp_path / "file")
