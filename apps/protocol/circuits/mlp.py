"""Networks of one and of two hidden layers (ReLU) for a label of C classes; softmax, log-loss.

They are trained by steps on shared rows alone: the mean of networks that sites trained apart means
nothing, since each site's hidden units stand for something else. So there is no local trainer and
no federated round; how scores become losses and evidence is multinomial regression's.
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
