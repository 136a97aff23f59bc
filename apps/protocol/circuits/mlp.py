"""Networks of one and of two hidden layers (ReLU) for a label of C classes; softmax, log-loss.

They are trained by steps on shared rows alone: the mean of networks that sites trained apart means
nothing, since each site's hidden units stand for something else. So there is no local trainer and
no federated round; how scores become losses and evidence is multinomial regression's.
"""

from __future__ import annotations

from dataclasses import replace

from apps.protocol.circuits import multinomial

ONE = replace(
    multinomial.CLASS,
    name="mlp",
    title="Neural network, one hidden layer",
    hidden=(32,),
    scorings=("taylor",),  # what steps compare sites by
    train=None,
    schedule={"rate_ppm": 100_000, "momentum_ppm": 900_000},
)
TWO = replace(
    ONE,
    name="mlp2",
    title="Neural network, two hidden layers",
    hidden=(32, 16),
)
