"""The closed form of an edit: the plain solve's result, by hand, and with earlier keys kept in place."""

import pytest
import torch
from torch import Tensor

from bench.moments import Projector, unprojected
from methods.weight_edits import solve


def random_case(m: int, m0: int) -> tuple[Tensor, Tensor, Projector, Tensor | None]:
    """Keys, residuals, a projector that takes 5 of 12 directions away, and earlier keys, all float64."""
    g = torch.Generator().manual_seed(m + 10 * m0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    basis = torch.linalg.qr(draw(12, 12))[0]
    return draw(12, m), draw(7, m), Projector(basis[:, :5], spans=False), draw(12, m0) if m0 else None


@pytest.mark.parametrize("m0", [0, 4])
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("l2", [1.0, 0.03])
def test_the_closed_form_is_the_plain_solve(m: int, m0: int, l2: float) -> None:
    keys, residuals, projector, earlier = random_case(m, m0)
    p = projector(torch.eye(12, dtype=torch.float64))
    cache = torch.zeros_like(p) if earlier is None else earlier @ earlier.T
    plain = torch.linalg.solve(
        p @ (keys @ keys.T + cache) + l2 * torch.eye(12, dtype=torch.float64), p @ keys @ residuals.T
    ).T  # dW = X^T
    found = solve(keys, residuals, projector, l2, earlier)
    change = found.factors.columns @ found.factors.rows
    torch.testing.assert_close(change, plain, rtol=0, atol=1e-10)
    assert torch.linalg.matrix_rank(change) == m == len(found.factors.rows)
    torch.testing.assert_close(found.kappa, (keys * (p @ keys)).sum(dim=0))
    if m == 1 and not m0:
        outer = residuals @ (p @ keys).T / (l2 + found.kappa)  # r (P k)^T / (lambda + k^T P k)
        torch.testing.assert_close(change, outer, rtol=0, atol=1e-10)
        torch.testing.assert_close(found.written, found.kappa / (l2 + found.kappa))
    # which part of its own residual is written at a key: of R e_j the coefficient in dW k_j
    written = torch.linalg.lstsq(residuals, change @ keys).solution.diagonal()
    torch.testing.assert_close(found.written, written)


def test_both_sides_of_the_eigenbasis_give_the_same_edit() -> None:
    keys, residuals, taken, earlier = random_case(2, 3)
    full = torch.linalg.qr(torch.cat([taken.basis, torch.eye(12, dtype=torch.float64)], dim=1))[0]
    kept = Projector(full[:, 5:12], spans=True)
    one, other = (solve(keys, residuals, p, 0.5, earlier).factors for p in (taken, kept))
    torch.testing.assert_close(one.columns @ one.rows, other.columns @ other.rows)


def test_the_closed_form_by_hand() -> None:
    # k = (1, 2, 2), P takes the third axis away: P k = (1, 2, 0), kappa = 1 + 4 = 5. lambda = 5 writes 5 / 10 = 1/2.
    # r = (4, -2): dW = r (P k)^T / 10 = [[.4, .8, 0], [-.2, -.4, 0]], and dW k = (.4 + 1.6, -.2 - .8) = (2, -1) = r / 2
    k, r = torch.tensor([[1.0], [2.0], [2.0]]), torch.tensor([[4.0], [-2.0]])
    found = solve(k, r, Projector(torch.tensor([[0.0], [0.0], [1.0]]), spans=False), 5.0)
    change = found.factors.columns @ found.factors.rows
    torch.testing.assert_close(change, torch.tensor([[0.4, 0.8, 0.0], [-0.2, -0.4, 0.0]]))
    assert (float(found.kappa), float(found.written)) == (pytest.approx(5.0), pytest.approx(0.5))
    torch.testing.assert_close(change @ k, r / 2)


def test_earlier_keys_keep_their_outputs() -> None:
    keys, residuals, _, earlier = random_case(2, 4)
    assert earlier is not None
    with_cache = solve(keys, residuals, unprojected(12).__call__, 1e-6, earlier).factors
    without = solve(keys, residuals, unprojected(12), 1e-6).factors
    moved, would = (f.columns @ (f.rows @ earlier) for f in (with_cache, without))
    assert would.abs().max() > 0.1
    assert moved.abs().max() < 1e-4
    torch.testing.assert_close(with_cache.columns @ (with_cache.rows @ keys), residuals, atol=1e-4, rtol=0)
