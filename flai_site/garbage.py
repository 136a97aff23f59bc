"""How often a server looks for garbage in what it has loaded."""

import gc

# Containers made before the youngest are looked at; a long list makes ten thousand.
YOUNG_MAX = 10_000


def settle() -> None:
    """What is loaded now stays for the life of the process: never look through it again.

    Django and its libraries are half a million objects, which Python walks every few hundred
    requests: whoever waits just then waits a fifth of a second longer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, *gc.get_threshold()[1:])
