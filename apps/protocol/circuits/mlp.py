"""Networks of one and of two hidden layers (ReLU) for a label of C classes; softmax, log-loss.

By steps on shared rows, or by the mean of what sites' own steps changed (network_round.py), all
from one public start. How scores become losses and evidence is multinomial regression's.
"""

from __future__ import annotations

from dataclasses import replace

from apps.protocol.circuits import multinomial
from apps.protocol.circuits.network import under_the_highest

ONE = replace(
    multinomial.CLASS,
    name="mlp",
    title="Neural network, one hidden layer",
    hidden=(32,),
    settle=under_the_highest,
    scorings=("taylor",),  # what steps compare sites by
    train=None,
    # patience: the loss of a network on few holdout rows goes up before it goes on down
    schedule={
        "steps": 20,
        "rate_ppm": 50_000,
        "momentum_ppm": 900_000,
        "l2_ppm": 5_000,
        "patience": 8,
    },
)
TWO = replace(
    ONE,
    name="mlp2",
    title="Neural network, two hidden layers",
    hidden=(32, 16),
)
