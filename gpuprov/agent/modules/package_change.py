"""What `gpuprov_packages` needs only when something differs: the plan of a change, and the guarded step."""

from __future__ import annotations

from gpuprov.agent.modules import package_record
from gpuprov.agent.modules.base import ModuleError
from gpuprov.agent.modules.version_rules import Planned, judge
from gpuprov.agent.modules.version_set import Refusal, choose, is_driver, one_of, parse_wanted, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuprov.agent.modules.base import Change
    from gpuprov.agent.modules.gpuprov_packages import Packages
    from gpuprov.agent.modules.package_manager import Manager
    from gpuprov.agent.modules.version_set import Meta, Step

#: How far dependencies on exactly one version are followed: metapackage, driver, kernel source.
_DEPTH = 6


class Plan:
    """What is going to be done: exact versions to ask for, and what that leads to."""

    __slots__ = ("steps", "versions")

    def __init__(self, versions: dict[str, str], steps: list[Step]) -> None:
        self.versions = versions
        self.steps = steps


def plan_of(module: Packages) -> Plan:
    """Simulate the change and judge it. Changes nothing. Raises ModuleError with all reasons against it."""
    manager, args = module.manager, module.args
    versions = _chosen(module)
    metas = _with_lockstep(manager, versions)
    steps = manager.simulate(versions, args["absent"])
    if not steps:
        return Plan(versions, [])
    brings = parse_wanted(args["brings"], patterns=True)
    changed = {step.name: step.new for step in steps}
    names = {*versions, *manager.matching([one.name for one in brings])}
    after = {**{name: manager.version(name) for name in names}, **changed}
    planned = Planned(steps, after, metas, manager.held(), _sources(manager, steps))
    refuse(judge(planned, module.wanted, {**args, "brings": brings}) + _room(manager, steps))
    return Plan(versions, steps)


def _chosen(module: Packages) -> dict[str, str]:
    """Return name -> exact version to ask for: the installed one where it fits. Raises ModuleError."""
    versions, missing = {}, []
    for one in module.wanted:
        version = module.manager.version(one.name)
        if one.fits(version):
            versions[one.name] = version
        else:
            missing.append(one)
    offered = module.manager.candidates([one.name for one in missing]) if missing else {}
    refusals = []
    for one in missing:
        choice = choose(one, offered.get(one.name, []))
        if isinstance(choice, Refusal):
            refusals.append(choice)
        else:
            versions[one.name] = choice.version
    refuse(refusals)
    return versions


def _with_lockstep(manager: Manager, versions: dict[str, str]) -> dict[str, Meta]:
    """Add to *versions* what must have exactly one version with them; return what is known of all that changes.

    Without it apt would look at the newest version of each sub-package only, and give up.
    """
    known: dict[str, Meta] = {}
    new = {name: version for name, version in versions.items() if manager.version(name) != version}
    for _ in range(_DEPTH):
        found = manager.metas(new) if new else {}
        known.update(found)
        # What is not offered at that version may be a virtual package: that is for the simulation to tell.
        versions.update({name: version for name, version in new.items() if name in found})
        new = {}
        for meta in found.values():
            new.update({name: version for name, version in meta.depends if version and name not in versions})
    return known


def _sources(manager: Manager, steps: Sequence[Step]) -> dict[str, str]:
    """Return name -> origin of all parts of the driver that will be there, when any of them changes."""
    changed = {step.name: step.source for step in steps}
    if not any(is_driver(name) for name in changed):
        return {}
    there = manager.matching(["*nvidia*", "*cuda*"])
    staying = [name for name in there if name not in changed and is_driver(name)]
    return {**manager.origins_of_installed(staying), **{step.name: step.source for step in steps if step.new}}


def _room(manager: Manager, steps: Sequence[Step]) -> list[Refusal]:
    """Return the refusal of a change that the disk has no room for."""
    said = manager.room(steps)
    remedy = "free some space, or make that file system larger"
    return [Refusal("disk-full", "", said, "room for the set", said, remedy)] if said else []


def change_packages(module: Packages, change: Change) -> None:
    """Repair, plan, change, hold. Raises ModuleError; what was on hold is on hold again in any case."""
    manager, args = module.manager, module.args
    ours = [*(one.name for one in module.wanted), *args["absent"], *args["family"]]
    _mend(module, ours, change)
    if args["update_cache"]:
        manager.refresh()
    plan = _plan_in_stream(module)
    holds = [name for name in manager.held() if args.get("hold") is not False or not one_of(name, ours)]
    before = {name: manager.version(name) for name in {*plan.versions, *(step.name for step in plan.steps)}}
    _guarded(module, plan, holds, before, change)
    after = {name: manager.version(name) for name in before}
    rows = [{"name": name, "before": before[name], "after": after[name]} for name in sorted(before)]
    change.result["packages"] = [row for row in rows if row["before"] != row["after"]]


def _plan_in_stream(module: Packages) -> Plan:
    """Enable the wanted module stream, then plan; a refusal puts the stream back as it was."""
    stream = module.args["module_stream"]
    if not module.manager.stream_differs(stream):
        return plan_of(module)
    undo = module.manager.set_stream(stream)
    try:
        return plan_of(module)
    except ModuleError:
        undo()
        raise


def _mend(module: Packages, ours: Sequence[str], change: Change) -> None:
    """Repair what an earlier run left: half-configured packages first, then holds."""
    left = package_record.interrupted(module.system)
    broken = [one.split(" ", 1)[0] for one in module.manager.broken()]
    before = left.before if left else {}
    repaired = module.manager.repair([name for name in broken if one_of(name, ours)], before)
    change.result["repaired"] = repaired
    if repaired:
        module.call.warnings.append("repaired what an earlier run had left: %s" % "; ".join(repaired))
    if left:
        _restore(module.manager, left.holds)
        package_record.end()
        module.call.warnings.append("an earlier change of packages was interrupted; its holds are set again")


def _guarded(module: Packages, plan: Plan, holds: list[str], before: dict[str, str], change: Change) -> None:
    """Change the packages; set the holds again whatever happens, and by a later run if this one is killed."""
    manager, args = module.manager, module.args
    package_record.begin(module.system, holds, before)
    try:
        if plan.steps or manager.leftovers(args["absent"]):
            change.result["stdout"] = manager.apply(plan.versions, args["absent"])
    except ModuleError as error:
        manager.forget()
        done = [step for step in plan.steps if manager.version(step.name) == step.new]
        rest = "then run again: %d of %d packages are done, the rest follows" % (len(done), len(plan.steps))
        error.hint = "; ".join(part for part in (error.hint, rest) if part)
        _restore_after(manager, holds, error)
        raise
    manager.forget()
    automatic = module.kept_by_others()
    if automatic:
        manager.keep(automatic)
    release = [name for name in module.names_to_hold() if name in manager.held()] if args.get("hold") is False else []
    if release:
        manager.unhold(release)
    _restore(manager, [*holds, *(module.names_to_hold() if args.get("hold") else [])])
    package_record.end()


def _restore(manager: Manager, holds: Sequence[str]) -> None:
    """Set holds again, of what is still installed."""
    manager.forget()
    held = manager.held()
    missing = sorted({name for name in holds if name not in held and manager.present(name)})
    if missing:
        manager.hold(missing)
        manager.forget()


def _restore_after(manager: Manager, holds: Sequence[str], error: ModuleError) -> None:
    """Set holds again after a failure; when that fails as well, the record stays and the next run does it."""
    try:
        _restore(manager, holds)
        package_record.end()
    except ModuleError as second:
        error.message += "; holds could not be set again (%s): the next run does it" % second.message
