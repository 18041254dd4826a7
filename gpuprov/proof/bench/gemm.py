"""Matrix products in each number format that the GPU has: right in every tile, the same bits each time, how fast.

torch is imported when a part runs: the list of parts is read by processes that have none.
"""

from __future__ import annotations

from gpuprov.proof.bench.numbers import error_bound
from gpuprov.proof.check import check, measurement
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Tuple

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.worker import Report

    #: Gets (number of the sample, result) before the result is looked at: canaries and tests spoil there.
    Tamper = Callable[[int, Any], None]
    #: Error as a part of its bound, the element, what it should be, the bound; row and column.
    Worst = Tuple[float, float, float, float, int, int]

DTYPES = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8")
#: The least compute capability; what has less has no such units, or none that torch uses.
NEEDS = {"tf32": (8, 0), "bf16": (8, 0), "fp16": (7, 0), "fp8": (8, 9), "int8": (7, 5)}
#: GPUs with full float64 arithmetic; the others have 1/32 or 1/64 of it and get a smaller product.
FULL_FP64 = ((6, 0), (7, 0), (8, 0), (9, 0), (10, 0))
SIZE, WEAK_FP64_SIZE, CPU_SIZE = 8192, 2048, 256
#: One element of every tile of a result of 8192 x 8192 with tiles of 128 x 128.
COMPARED = 64


def size(dtype: str, capability: tuple[int, int] | None) -> int:
    """Return n of the n x n x n product; capability is None on a CPU. Pure.

    By the model alone, never by the measured speed: what is compared between GPUs has to be the same work.
    """
    if capability is None:
        return CPU_SIZE
    return WEAK_FP64_SIZE if dtype == "fp64" and capability not in FULL_FP64 else SIZE


def lacks(dtype: str, capability: tuple[int, int] | None) -> str:
    """Return why a device cannot multiply in *dtype*, "" when it can. Pure."""
    if capability is None:
        return "TF32 is a format of GPUs" if dtype == "tf32" else ""
    least = NEEDS.get(dtype, (0, 0))
    if capability >= least:
        return ""
    return "{} needs compute capability {}.{}, this GPU has {}.{}".format(dtype, *least, *capability)


def taken(dtype: str, n: int) -> int:
    """Return the bytes that three matrices of *dtype* take. Pure."""
    return n * n * {"fp64": 24, "bf16": 6, "fp16": 6, "fp8": 4, "int8": 6}.get(dtype, 12)


class Product:
    """A product of two matrices of known numbers on one device."""

    def __init__(self, dtype: str, n: int, device: str, seed: int) -> None:
        import torch

        from gpuprov.proof.bench import device as on

        out = {"fp8": torch.bfloat16, "int8": torch.int32}.get(dtype, on.DTYPES[dtype])
        self.dtype, self.n, self.device = dtype, n, device
        self.a = on.noise(n, n, dtype, device, seed, 1)
        self.b = on.noise(n, n, dtype, device, seed, 2)
        if dtype in ("fp8", "int8"):  # their units take the second one by columns
            self.b = self.b.t()
        self.c = torch.zeros((n, n), dtype=out, device=device)
        self._one = torch.ones((), dtype=torch.float32, device=device)

    def run(self) -> None:
        """Multiply."""
        import torch

        if self.dtype == "int8":
            torch._int_mm(self.a, self.b, out=self.c)
        elif self.dtype == "fp8":
            kind, one = torch.bfloat16, self._one
            torch._scaled_mm(self.a, self.b, scale_a=one, scale_b=one, out_dtype=kind, out=self.c)
        else:
            torch.mm(self.a, self.b, out=self.c)


class Reference:
    """Some elements of a product in float64 on the CPU, spread over all tiles, and how far off they may be."""

    def __init__(self, product: Product, seed: int) -> None:
        import torch

        n = product.n
        count = min(COMPARED, n)
        step = n // count
        # One row and one column of each stripe; which one, differs.
        shift = torch.arange(count) * 7 + seed
        self.rows = torch.arange(count) * step + shift % step
        self.columns = torch.arange(count) * step + (shift * 3 + 1) % step
        a = _rows(product.a, self.rows)
        b = _rows(product.b.t(), self.columns).t()
        self.exact = a @ b
        by_root, by_size, least = error_bound(product.dtype, n)
        self.bound = by_root * (a.square() @ b.square()).sqrt() + by_size * self.exact.abs() + least

    def picked(self, result: Any) -> Any:
        """Return the elements of *result* that are compared, in float64 on the CPU."""
        return _rows(result, self.rows)[:, self.columns]

    def worst(self, picked: Any) -> Worst:
        """Return the element that is farthest off by its bound. NaN is infinitely far off."""
        part = ((picked - self.exact).abs() / self.bound.clamp_min(1e-300)).nan_to_num(nan=float("inf"))
        row, column = divmod(int(part.argmax()), part.shape[1])
        error, value, right, bound = (float(table[row, column]) for table in (part, picked, self.exact, self.bound))
        return error, value, right, bound, int(self.rows[row]), int(self.columns[column])


def _rows(matrix: Any, numbers: Any) -> Any:
    """Return rows of *matrix* in float64 on the CPU. Picked as integers: not every format can be indexed."""
    from gpuprov.proof.bench import device as on

    integers = matrix.view(on.INTEGERS[matrix.element_size()])
    return integers[numbers.to(matrix.device)].cpu().view(matrix.dtype).double()


def uses_tf32(device: str) -> bool:
    """Say whether float32 products are TF32 at present: 1 + 2**-13 does not survive that."""
    import torch

    n = 512
    near_one = torch.full((n, n), 1.0 + 2.0**-13, device=device)
    back = torch.mm(near_one, torch.eye(n, device=device))
    return not bool((back == near_one).all())


def measure(context: Context, dtype: str, budget_s: float, tamper: Tamper | None = None) -> Message:
    """Return the check of products in *dtype* on the context's device. Raises RuntimeError (torch's)."""
    import torch

    from gpuprov.proof.bench import device as on

    device, name = context.device, on.named(context.device, "gemm." + dtype)
    capability = torch.cuda.get_device_capability(device) if on.on_gpu(device) else None
    reason = lacks(dtype, capability)
    if reason:
        return check(name, "skip", reason, device=device, data=on.identity(context.device))
    n = size(dtype, capability)
    reason = on.room(device, taken(dtype, n))
    if reason:
        return check(name, "unknown", reason, device=device, action="restart job", data=on.identity(context.device))
    with on.prepared(device):
        if dtype == "tf32":
            torch.set_float32_matmul_precision("high")
        wrong = _not_the_format(dtype, device)
        if wrong:
            return check(name, "skip", wrong, device=device, data=on.identity(context.device))
        product = Product(dtype, n, device, context.seed)
        return _judged(context, name, product, budget_s, tamper)


def _not_the_format(dtype: str, device: str) -> str:
    """Return why float32 and TF32 are not what they are called here, "" when they are."""
    if dtype not in ("fp32", "tf32") or uses_tf32(device) == (dtype == "tf32"):
        return ""
    if dtype == "tf32":
        return "float32 products do not use TF32 though torch asks for it (NVIDIA_TF32_OVERRIDE=0 does that)"
    return "float32 products use TF32 though torch asks for float32 (NVIDIA_TF32_OVERRIDE=1 does that)"


def _judged(context: Context, name: str, product: Product, budget_s: float, tamper: Tamper | None) -> Message:
    from gpuprov.proof.bench import device as on

    reference = Reference(product, context.seed)
    sums: list[str] = []
    worst: Worst = (-1.0, 0.0, 0.0, 0.0, 0, 0)

    read = _sensors(product.device)
    readings: list[Message] = []

    def look(number: int) -> None:
        nonlocal worst
        if read is not None:
            product.run()  # readings are of a GPU at work
            readings.append(read())
            on.wait(product.device)
        if tamper is not None:
            tamper(number, product.c)
        sums.append(on.checksum(product.c))
        now = reference.worst(reference.picked(product.c))
        worst = now if now[0] > worst[0] else worst

    seconds = on.sampled(product.device, product.run, budget_s, look)
    rates = [2.0 * product.n**3 / s / 1e12 for s in seconds]
    data: dict[str, Any] = on.identity(context.device)
    data.update(
        bits=max(set(sums), key=sums.count),
        bits_of=f"{name} {product.n}^3, {on.DATA}, seed {context.seed}; {on.computed_by(product.device)}",
        error=worst[0],
        compared=reference.exact.numel(),
    )
    data.update(load_means(readings))
    bad = _fault(product.dtype, sums, worst) or _blind(product, reference)
    unit = "TOPS" if product.dtype == "int8" else "TFLOPS"
    if bad:
        seen = sorted(set(sums), key=sums.count, reverse=True)[:5]
        data["evidence"] = [f"checksum {one}: {sums.count(one)} of {len(sums)} samples" for one in seen]
        action = on.blamed(product.device, bad)
        return measurement(name, rates, unit, "higher", bad, product.device, "fail", data, action)
    reason = (
        f"{len(sums)} samples of {product.n}^3 products gave the same bits, and {data['compared']} elements of all "
        f"tiles are within {worst[0]:.2g} of their error bound"
    )
    return measurement(name, rates, unit, "higher", reason, device=product.device, data=data)


def _sensors(device: str) -> Callable[[], Message] | None:
    """Return what reads power, temperature and clock of a GPU; None where nothing does."""
    from gpuprov.proof.bench import device as on
    from gpuprov.proof.bench.sensors import LOAD, Sensors

    if not on.on_gpu(device):
        return None
    sensors = Sensors(on.identity(device).get("uuid", ""))
    return None if sensors.reason else lambda: sensors.read(LOAD)


def load_means(readings: Sequence[Message]) -> Message:
    """Return the means of power in W, temperature and clock beside the samples: as many as were read. Pure."""
    found: Message = {}
    for key, name, unit in (
        ("power", "power_w", 1000.0),
        ("temperature", "temperature_c", 1.0),
        ("clock.sm", "mhz", 1.0),
    ):
        values = [one[key] / unit for one in readings if key in one]
        if values:
            found[name] = round(sum(values) / len(values), 1)
    return found


def _fault(dtype: str, sums: list[str], worst: Worst) -> str:
    """Return what is wrong with the results, "" when nothing is."""
    error, value, right, bound, row, column = worst
    if error > 1.0:
        return (
            f"wrong result: element ({row}, {column}) of a {dtype} product is {value:.9g} where float64 has "
            f"{right:.9g}; rounding explains {bound:.3g} at most"
        )
    usual = max(set(sums), key=sums.count)
    if len(set(sums)) > 1:
        first = next(i for i, one in enumerate(sums) if one != usual)
        return (
            f"silent data corruption: the same {dtype} product gave other bits {len(sums) - sums.count(usual)} "
            f"of {len(sums)} times, first in sample {first + 1}"
        )
    return ""


def _blind(product: Product, reference: Reference) -> str:
    """Spoil the result and look: return what the two comparisons did not notice, "" when they see."""
    from gpuprov.proof.bench import device as on

    before = on.checksum(product.c)
    integers = product.c.view(on.INTEGERS[product.c.element_size()])
    integers[product.n // 3, product.n // 2] ^= 1
    if on.checksum(product.c) == before:
        return "canary: one flipped bit of the result did not change its checksum: this run proves nothing"
    spoiled = reference.picked(product.c).flatten()
    largest = int(reference.exact.abs().argmax())
    spoiled[largest] = -spoiled[largest]
    if reference.worst(spoiled.reshape(reference.exact.shape))[0] <= 1.0:
        return "canary: an element with the wrong sign was not noticed: this run proves nothing"
    return ""


def _part(dtype: str) -> Part:
    def run(context: Context, report: Report) -> None:
        from gpuprov.proof.bench import device as on

        report.stage(f"multiplying matrices in {dtype} on {context.device}")
        report.check(measure(context, dtype, on.uses(context, 0.5, 1.5, 60.0)))

    reads = f"{dtype} products of random numbers, compared with float64 on the CPU"
    return Part("gemm." + dtype, "nightly", "device", run, reads, deadline_s=120.0, loads=True)


PARTS = tuple(_part(dtype) for dtype in DTYPES)
