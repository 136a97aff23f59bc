"""What the story looks like on a terminal: calm lines, aligned numbers, colour only on a tty."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

WIDTH = 78
BOLD, DIM, GREEN, RED, OFF = "\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m"


class Screen:
    """Prints phases with the time they took. `seconds` collects it by phase."""

    def __init__(self) -> None:
        self.colour = sys.stdout.isatty()
        self.seconds: dict[str, float] = {}
        self._phase: tuple[str, float] | None = None

    def paint(self, text: str, code: str) -> str:
        return f"{code}{text}{OFF}" if self.colour else text

    def title(self, text: str) -> None:
        print(f"\n{self.paint(text, BOLD)}", flush=True)

    def phase(self, number: int, key: str, title: str) -> None:
        """Begin a phase; the one before ends here."""
        self.end_phase()
        self._phase = (key, time.monotonic())
        print(f"\n{self.paint(f'{number}  {title}', BOLD)}", flush=True)

    def end_phase(self) -> None:
        if self._phase is None:
            return
        key, began = self._phase
        took = time.monotonic() - began
        self.seconds[key] = round(self.seconds.get(key, 0.0) + took, 2)
        print(self.paint(f"   {took:.1f} s", DIM), flush=True)
        self._phase = None

    def done(self, text: str) -> None:
        print(f"   {self.paint('✓', GREEN)} {text}", flush=True)

    def failed(self, text: str) -> None:
        print(f"   {self.paint('✗', RED)} {text}", flush=True)

    def note(self, text: str = "") -> None:
        print(f"     {text}" if text else "", flush=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns as wide as they need; the first to the left, numbers to the right."""
        widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]

        def line(cells: Sequence[str]) -> str:
            first = cells[0].ljust(widths[0])
            rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
            return "   " + "   ".join([first, *rest])

        print(self.paint(line(header), DIM))
        for row in rows:
            print(line(row))
        sys.stdout.flush()


def money(micro: int, digits: int = 2) -> str:
    """Micro-units as a decimal: 500000 -> 0.50; exact with digits = 6."""
    sign, micro = ("-" if micro < 0 else ""), abs(micro)
    scale = 10 ** (6 - digits)
    units = (micro + scale // 2) // scale
    whole, part = divmod(units, 10**digits)
    return f"{sign}{whole:,}.{part:0{digits}d}" if digits else f"{sign}{whole:,}"
