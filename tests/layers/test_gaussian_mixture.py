"""The mixture of Gaussians: against SciPy in float64, at the extremes, and what it draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_case import close, data, drawn
from scipy import integrate, special

from surnn_jax import switches
from surnn_jax.layers import GaussianMixture, WaveformPredictor

K, N = 3, 2
HEAD = GaussianMixture(K, N, min_std=0.05)
# Compiled whole: operation by operation takes ten times as long.
DENSITY = jax.jit(HEAD.log_density)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def parts(outputs: np.ndarray, k: int, n: int, floor: float) -> tuple[np.ndarray, ...]:
    """Weights ``[K]``, means and deviations ``[K, N]`` of one mixture, in float64."""
    weights = special.softmax(outputs[:k])
    means, spreads = outputs[k:].reshape(2, k, n)
    return weights, means, floor + np.log1p(np.exp(spreads))


def log_density(outputs: np.ndarray, target: np.ndarray, floor: float = 0.05) -> float:
    """By SciPy, in float64."""
    from scipy import stats  # half a second, of every worker that collects

    weights, means, deviations = parts(outputs, K, N, floor)
    logs = [
        np.log(w) + sum(stats.norm.logpdf(target, m, s))
        for w, m, s in zip(weights, means, deviations, strict=True)
    ]
    return special.logsumexp(logs)


def test_log_density_is_that_of_scipy():
    outputs, target = 2 * numbers(4, 5, HEAD.width), numbers(4, 5, N, seed=1)
    wanted = [
        [log_density(o, t) for o, t in zip(*rows, strict=True)]
        for rows in zip(outputs, target, strict=True)
    ]
    found = DENSITY(outputs.astype(np.float32), target.astype(np.float32))
    assert found.dtype == jnp.float32
    # Ten float32 terms of size ten at most.
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    with jax.enable_x64(True):
        found = DENSITY(outputs, target)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_gradient_is_that_of_finite_differences():
    outputs, target = numbers(HEAD.width, seed=2), numbers(N, seed=3)
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(HEAD.log_density))(outputs, target)
    step = 1e-6
    for i in range(HEAD.width):
        moved = step * (np.arange(HEAD.width) == i)
        slope = (log_density(outputs + moved, target) - log_density(outputs - moved, target)) / (
            2 * step
        )
        assert gradient[i] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_bfloat16_is_computed_in_float32():
    rounded = [data(*shape).astype(jnp.bfloat16) for shape in ((4, HEAD.width), (4, N))]
    found = DENSITY(*rounded)
    assert found.dtype == jnp.float32
    wide = [part.astype(jnp.float32) for part in rounded]
    np.testing.assert_allclose(found, DENSITY(*wide), rtol=1e-6)


def at(weights: list[float], mean: float, spread: float) -> np.ndarray:
    """Outputs of three components alike but for their weights."""
    return np.array([*weights, *[mean] * (K * N), *[spread] * (K * N)], np.float32)


EXTREMES = {
    "far away": (at([0, 0, 0], 0, 0), 1e6),
    "tiny deviations, right on it": (at([0, 0, 0], 0, -200), 0),
    "tiny deviations, far away": (at([0, 0, 0], 0, -200), 1e6),
    "huge deviations": (at([0, 0, 0], 1e6, 1e4), 0),
    "all weight on one": (at([1e4, 0, 0], 1, 0), 1),
    "all at once": (at([-1e4, -1e4, 1e4], 0, -200), 1e6),
}


def test_extremes_stay_finite_and_right():
    from scipy import stats

    outputs = np.stack([outputs for outputs, _ in EXTREMES.values()])
    target = np.repeat(np.array([[t] for _, t in EXTREMES.values()], np.float32), N, axis=1)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(HEAD.log_density)))(outputs, target)
    assert np.isfinite(gradients).all()
    for value, row, wanted in zip(values, outputs.astype(float), target, strict=True):
        # The components are alike, so their weights do not matter.
        mean, deviation = row[K], 0.05 + np.logaddexp(0, row[-1])
        density = N * stats.norm.logpdf(float(wanted[0]), mean, deviation)
        assert value == pytest.approx(density, rel=1e-5)


def test_the_floor_bounds_the_density():
    # As the docstrings say of ten numbers and a floor of 0.01.
    head = GaussianMixture()
    still = np.array([*[0] * 220, *[-200] * 200], np.float32)
    best = jax.jit(head.log_density)(still, np.zeros(10, np.float32))
    assert best == pytest.approx(-10 * np.log(0.01 * np.sqrt(2 * np.pi)), rel=1e-6)
    assert best == pytest.approx(36.86, abs=0.01)


def test_one_number_has_a_density_that_sums_to_one():
    head = GaussianMixture(4, 1, min_std=0.02)
    outputs = (2 * numbers(head.width, seed=4)).astype(np.float32)
    grid = np.linspace(-60, 60, 200_001)
    over = jax.jit(jax.vmap(head.log_density, (None, 0)))
    density = np.exp(over(outputs, grid[:, None].astype(np.float32)))
    # Trapezoids 6e-4 wide beside deviations of 0.02 and more; float32 sums.
    assert integrate.trapezoid(density, grid) == pytest.approx(1, abs=1e-4)


def test_samples_and_moments_agree_with_the_mixture():
    outputs = 1.5 * numbers(HEAD.width, seed=6)
    weights, means, deviations = parts(outputs, K, N, 0.05)
    mean = weights @ means
    variance = weights @ (deviations**2 + means**2) - mean**2
    given = outputs.astype(np.float32)
    found = jax.jit(HEAD.moments)(given)
    np.testing.assert_allclose(found[0], mean, rtol=1e-5)
    np.testing.assert_allclose(found[1], np.sqrt(variance), rtol=1e-5)
    many = 40_000
    draw = jax.jit(lambda key, x: HEAD.sample(key, jnp.broadcast_to(x[None], (many, HEAD.width))))
    drawn = draw(jax.random.key(0), given)
    assert drawn.shape == (many, N)
    # Five standard errors of a mean, and of a variance whose tails are no heavier than twice the
    # normal's.
    assert (np.abs(drawn.mean(0) - mean) < 5 * np.sqrt(variance / many)).all()
    np.testing.assert_allclose(drawn.var(0), variance, rtol=5 * np.sqrt(4 / many))
    # The numbers of one draw come from one component, so they hang together.
    wanted = sum(w * np.outer(m - mean, m - mean) for w, m in zip(weights, means, strict=True))
    assert np.cov(np.asarray(drawn).T)[0, 1] == pytest.approx(wanted[0, 1], abs=0.05)
    assert abs(wanted[0, 1]) > 0.2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GaussianMixture(0), "components must be at least 1, got 0"),
        (lambda: GaussianMixture(numbers=0), "numbers must be at least 1, got 0"),
        (lambda: GaussianMixture(min_std=0.0), "min_std must be positive, got 0.0"),
        (lambda: GaussianMixture(min_std=float("nan")), "min_std must be positive, got nan"),
        (lambda: HEAD.mixture(jnp.zeros(5)), r"outputs must be \[\*batch, 15\], got \[5\]"),
        (lambda: HEAD.log_density(jnp.zeros((4, 15)), jnp.zeros(2)), r"target must be \[4, 2\]"),
    ],
)
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_the_waveform_predictor_steps_as_it_runs_and_sees_no_future():
    model = WaveformPredictor("gru", 5, HEAD, switches.event(6, rate=0.4))
    x = data(3, 6, 4)
    params = {"params": drawn(model, x)}

    @jax.jit
    def both(x):
        def step(carry, now):
            return model.apply(params, carry, now, method="step")

        begin = model.apply(params, (3,), method="initial_carry")
        _, outputs = jax.lax.scan(step, begin, jnp.swapaxes(x, 0, 1))
        return jnp.swapaxes(outputs, 0, 1), model.apply(params, x)

    outputs, (wanted, run) = both(x)
    assert wanted.shape == (3, 6, HEAD.width)
    close(outputs, wanted)
    linear = params["params"]["readout"]["linear"]
    close(wanted, run.outputs @ linear["kernel"] + linear["bias"][None, None])
    changed, _ = both(x.at[:, 3].add(3.0))
    assert np.array_equal(changed[:, :3], outputs[:, :3])
    assert (changed[:, 3:] != outputs[:, 3:]).any(axis=(0, 2)).all()
