"""From an accepted draft to a Stack with the reason for every part. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuprov.stack import packages
from gpuprov.stack.candidates import recommended
from gpuprov.stack.hosts import short_form
from gpuprov.stack.model import AUTO, LATEST, NONE, Python, Reason, Stack, Torch, Want

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpuprov.stack.draft import Draft, Violation
    from gpuprov.stack.model import HostFacts
    from gpuprov.stack.tables import Tables


def build(draft: Draft, want: Want, host: HostFacts, tables: Tables, found: Sequence[Violation]) -> Stack:
    """Return the stack of *draft*; *found* are the rules that it keeps only with a warning."""
    packaged = draft.driver or draft.cuda or draft.cudnn or draft.nccl or draft.dcgm or draft.container_toolkit
    warnings = [one.message for one in found]
    if packaged and not packages.family(host, tables) and not draft.kept:
        warnings.append("packages are not named: no system with a known package manager was given")
    return Stack(
        driver=packages.driver(draft, host, tables) if draft.driver else None,
        cuda=packages.toolkit(draft, host, tables) if draft.cuda else None,
        cudnn=packages.cudnn(draft, host, tables) if draft.cudnn else None,
        nccl=packages.nccl(draft, host, tables) if draft.nccl else None,
        fabricmanager=packages.fabricmanager(draft, host, tables) if draft.fabricmanager else None,
        dcgm=packages.dcgm(draft, host, tables) if draft.dcgm else None,
        container_toolkit=packages.container_toolkit(draft, host, tables) if draft.container_toolkit else None,
        torch=_torch(draft, tables) if draft.torch else None,
        python=Python(draft.python, draft.python_path or None, draft.managed) if draft.torch else None,
        repository=packages.repository(draft, host, tables) if packaged else None,
        reasons=tuple(_reasons(draft, want, host, tables)),
        warnings=tuple(dict.fromkeys(warnings)),
        tables=tables.as_of,
        host=short_form(host),
    )


def _torch(draft: Draft, tables: Tables) -> Torch:
    row = tables.rows("torch")[draft.torch]
    index = tables.blocks["torch"]["index"]
    url = str(index["url"]).replace("{tag}", draft.variant)
    audio = row.get("torchaudio")
    return Torch(draft.torch, draft.variant, row.get("torchvision"), audio, url)


def _reasons(draft: Draft, want: Want, host: HostFacts, tables: Tables) -> Iterator[Reason]:
    yield _of_driver(draft, want, host, tables)
    if draft.driver:
        yield _of_flavour(draft, want)
    if draft.driver or draft.fabricmanager:
        text = draft.fabricmanager or NONE
        why = "equal to the driver, since there are NVSwitches" if draft.fabricmanager else "there is no NVSwitch"
        yield Reason("fabricmanager", text, why, "fm_exact" if draft.fabricmanager else "fm_needed")
    yield _of_torch(draft, want, host, tables)
    if draft.torch:
        yield _of_python(draft, want)
    for part, wish in (("cuda", want.cuda), ("cudnn", want.cudnn), ("nccl", want.nccl), ("dcgm", want.dcgm)):
        text = getattr(draft, part)
        if text:
            yield Reason(part, text, _asked(wish), "want")
        elif part == "cuda":
            yield Reason(part, NONE, "not wanted; torch brings its own CUDA libraries", "torch_bundles")


def _asked(wish: str) -> str:
    if wish == AUTO:
        return "the newest that fits"
    return "the newest release" if wish == LATEST else f"{wish} is wanted"


def _of_driver(draft: Draft, want: Want, host: HostFacts, tables: Tables) -> Reason:
    if not draft.driver:
        why = "none is wanted" if want.driver == NONE else "no NVIDIA GPU (PCI 10de)"
        return Reason("driver", NONE, why, "want")
    if draft.kept:
        return Reason("driver", draft.driver, "it is installed and fits everything else", "kept")
    row = tables.branch(draft.branch) or {}
    life = f", supported until {row['eol']}" if row.get("eol") and row["status"] == "supported" else ""
    if want.driver not in ("", AUTO):
        return Reason("driver", draft.driver, _asked(want.driver) + life, "want")
    if draft.kind == "distribution":
        return Reason("driver", draft.driver, "what the distribution's own archive has", "distribution_drivers")
    if draft.branch == recommended(host, tables):
        why = f"newest build of branch {draft.branch}, which the tables recommend for these GPUs{life}"
        return Reason("driver", draft.driver, why, "default_choice")
    why = f"branch {recommended(host, tables)} does not fit; the newest supported branch that does{life}"
    return Reason("driver", draft.driver, why, "default_choice")


def _of_flavour(draft: Draft, want: Want) -> Reason:
    if want.flavour not in ("", AUTO):
        return Reason("flavour", draft.flavour, _asked(want.flavour), "want")
    if draft.kept:
        return Reason("flavour", draft.flavour, "as installed", "kept")
    if draft.flavour == "open":
        return Reason(
            "flavour", "open", "what NVIDIA suggests from Turing on, and all that Blackwell has", "open_required"
        )
    if draft.kind == "distribution":
        return Reason("flavour", "proprietary", "the archive's newest driver has it", "distribution_drivers")
    return Reason("flavour", "proprietary", "a GPU older than Turing needs it", "open_impossible")


def _of_torch(draft: Draft, want: Want, host: HostFacts, tables: Tables) -> Reason:
    if not draft.torch:
        return Reason("torch", NONE, "none is wanted", "want")
    text = f"{draft.torch} {draft.variant}"
    why = _asked(want.torch or AUTO)
    newest = str(tables.blocks["freshness"]["newest_torch"])
    if want.torch in ("", AUTO) and draft.torch != newest:
        why += f"; {newest} does not"
    if draft.variant == "cpu" and not host.gpus:
        return Reason("torch", text, f"{why}; the CPU build, since there is no NVIDIA GPU", "torch_no_gpu")
    return Reason("torch", text, why, "torch_arch")


def _of_python(draft: Draft, want: Want) -> Reason:
    if draft.managed:
        return Reason(
            "python", draft.python, f"managed: none of the host's own is what is wanted ({want.python})", "want"
        )
    return Reason(
        "python",
        draft.python,
        "the host's own" + (f", {draft.python_path}" if draft.python_path else ""),
        "torch_python",
    )


def in_words(stack: Stack) -> str:
    """Return a stack as one clause."""
    said = []
    if stack.driver is not None:
        said.append(f"driver {stack.driver.version} ({stack.driver.flavour} kernel modules)")
    if stack.cuda is not None:
        said.append(f"CUDA {stack.cuda.version}")
    if stack.torch is not None and stack.python is not None:
        managed = "a managed " if stack.python.managed else ""
        said.append(f"torch {stack.torch.version} {stack.torch.variant} on {managed}Python {stack.python.version}")
    return ", ".join(said) or "nothing to install"
