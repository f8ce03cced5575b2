"""Option texts -> values."""

import re

from csrecon.errors import UsageError

_MOST_IPL = 1000  # no network allows more


def shape(text: str | None) -> tuple[int, int] | None:
    """`480x288` -> (480, 288), height first."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,7})\s*[xX×,]\s*(\d{1,7})\s*", text)
    if not match or 0 in (size := (int(match[1]), int(match[2]))):
        raise UsageError(f"--shape {text!r}: expected HxW in pixels, height first, as 480x288.")
    return size


def ipl(text: str | None) -> int | tuple[int, ...] | None:
    """`6` -> 6; `4,4,4,6,6` -> one count per layer."""
    if text is None:
        return None
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--ipl {text!r}: expected iterations per layer: one number as 6, or one per layer as "
            "4,4,4,6,6."
        ) from error
    if min(counts) < 1:
        raise UsageError(f"--ipl {text!r}: every layer needs at least 1 iteration.")
    return counts[0] if len(counts) == 1 else counts


def ipls(text: str) -> list[int]:
    """`1..6` or `1,2,4,6` -> the numbers."""
    try:
        ends = re.fullmatch(r"\s*(\d{1,4})\s*\.\.\s*(\d{1,4})\s*", text)
        numbers = (
            list(range(int(ends[1]), min(int(ends[2]), _MOST_IPL + 1) + 1))
            if ends
            else [int(part) for part in text.split(",")]
        )
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1 or max(numbers) > _MOST_IPL:
        raise UsageError(f"--ipls {text!r}: expected numbers in 1..{_MOST_IPL} as 1..6 or 1,2,4,6.")
    return numbers


def ratios(text: str) -> list[float]:
    """`0.1,0.3` -> the numbers; their range is checked where they are used."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--ratio {text!r}: expected numbers in (0, 1], as 0.1,0.3.") from error


def sigmas(text: str) -> list[float]:
    """`0,0.02` -> the standard deviations."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 <= sigma < float("inf") for sigma in found):
        raise UsageError(f"--noise-sigma {text!r}: expected numbers of at least 0, as 0,0.02,0.1.")
    return found


def blocks(text: str | None) -> list[int | None]:
    """`16,33` -> the sides in pixels; None for the default of the kind of Φ."""
    if text is None:
        return [None]
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) < 10**5 for part in parts):
        raise UsageError(f"--block {text!r}: expected sides in pixels, as 32 or 16,33.")
    return [int(part) for part in parts]


def model_at(text: str) -> tuple[str, int | tuple[int, ...] | None]:
    """`rcoast@6` -> model and IPL.

    A path keeps its `@`, a name on the hub its `@revision`, and a solver that of its denoiser.
    """
    name, at, counts = text.rpartition("@")
    if not at or ":" in name or text.endswith(".safetensors") or "/" in counts:
        return text, None
    return name, ipl(counts)


def lpips(text: str) -> bool:
    """`psnr,ssim,lpips` -> whether LPIPS is asked for."""
    asked = {part.strip().lower() for part in text.split(",")}
    if not asked <= {"psnr", "ssim", "lpips"}:
        raise UsageError(
            f"--metrics {text!r}: expected psnr,ssim (always computed) or psnr,ssim,lpips."
        )
    return "lpips" in asked


def seconds(text: str) -> float:
    """`90s`, `25m` or `2h` -> seconds."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smh])", text)
    if not match or float(match[1]) == 0:
        raise UsageError(f"--max-time {text!r}: expected 90s, 25m or 2h.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
