"""How good the mean of networks is that sites taught at home: `python -m` this prints the table of
docs/learning.md (M-FL2, M-FL4)."""

import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from apps.protocol import descent

TESTED, HELD = 400, 200


def digits(seed, sites, *, two_each):
    """(parts of the rows that train, held, tested), features as a normalisation makes them."""
    rng, (x, labels) = np.random.default_rng(seed), load_digits(return_X_y=True)
    order = rng.permutation(len(x))
    x, labels = x[order], labels[order]
    rest = np.arange(TESTED + HELD, len(x))
    x = np.clip((x - x[rest].mean(0)) / np.maximum(x[rest].std(0), 0.1), -16, 16)
    if two_each:  # four rows of five lie with the site that has their digit
        away = rng.random(len(rest)) < 0.2
        owner = np.where(away, rng.integers(0, sites, len(rest)), labels[rest] * sites // 10)
        parts = [rest[owner == site] for site in range(sites)]
    else:
        parts = np.array_split(rest, sites)
    return x, np.eye(10)[labels], parts, np.arange(TESTED, TESTED + HELD), np.arange(TESTED)


def rounds_model(seed, sites, hidden, *, two_each=False, bad=0):
    """(φ, accuracy of the round's network, of one that all honest rows taught); of the bad sites
    the first has its labels moved by one digit, the second any."""
    x, y, parts, held, tested = digits(seed, sites, two_each=two_each)
    rng, start, changes = np.random.default_rng(seed), descent.public_start([64, *hidden, 10]), []
    for site, part in enumerate(parts):
        labels = y[part]
        if site < bad:
            labels = rng.permutation(labels) if site else np.roll(labels, 1, axis=1)
        found = descent.learnt(x[part], labels, hidden, c=1.0)
        changes.append(np.concatenate([(b - a).reshape(-1) for a, b in zip(start, found)]))
    phi, model = descent.averaged(np.array(changes), [(x[held], y[held])], hidden)
    honest = np.concatenate(parts[bad:])
    pooled = descent.learnt(x[honest], y[honest], hidden, c=1.0)

    def right(weights):
        return np.mean(descent.scores_of(weights, x[tested]).argmax(1) == y[tested].argmax(1))

    return phi, right(model), right(pooled)


@pytest.mark.parametrize("hidden", [(32,), (32, 16)])
def test_the_mean_of_networks_from_one_start_is_nearly_as_good_as_one_of_all_rows(hidden):
    found = [rounds_model(seed, 5, hidden)[1:] for seed in (0, 1)]
    mean, pooled = np.mean(found, axis=0)
    assert pooled > 0.95 and pooled - 0.06 < mean


def test_two_bad_sites_of_eight_get_nothing():
    for seed in (0, 1):
        phi, mean, _ = rounds_model(seed, 8, (32,), bad=2)
        assert np.all(phi[:2] < 0.1 * np.median(phi[2:])) and mean > 0.88


def table(seeds):
    print("| network | sites | accuracy | pooled | φ of bad ones, most | of honest ones, least |")
    print("|---|---|---|---|---|---|")
    for hidden in ((32,), (256,), (32, 16)):
        for sites, two_each, bad in ((5, False, 0), (5, True, 0), (8, False, 0), (8, False, 2)):
            runs = [rounds_model(s, sites, hidden, two_each=two_each, bad=bad) for s in seeds]
            mean, pooled = (np.mean([run[at] for run in runs]) for at in (1, 2))
            worst = max((run[0][:bad].max() for run in runs), default=0) if bad else "–"
            least = min(run[0][bad:].min() for run in runs)
            about = "mostly two digits each" if two_each else f"even{', two bad' * bool(bad)}"
            print(f"| 64-{'-'.join(map(str, hidden))}-10 | {sites}, {about} | {mean:.3f} | "
                  f"{pooled:.3f} | {worst if worst == '–' else f'{worst:.2f}'} | {least:.2f} |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    table(range(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
