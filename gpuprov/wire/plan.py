"""The shape of a Plan: all that one host will do. Types only; a plan is plain JSON.

Whatever the controller knew is already rendered. What depends on a registered result is
*deferred*: it is still a template, to be rendered on the host with `vars` and the results.
A deferred expression list is a list of Jinja2 expressions without braces, all of which must hold.
"""

from __future__ import annotations

from typing import Any, TypedDict


class Item(TypedDict, total=False):
    """One pass of a loop that the controller expanded."""

    item: Any  # the loop variable's value
    label: str  # how it is shown
    args: dict[str, Any]  # rendered arguments (templates when the task is deferred)
    skip: str  # why this pass is skipped; absent = it runs
    environment: dict[str, str]  # when it differs from the task's


class TaskNode(TypedDict, total=False):
    """One task. Absent keys mean "nothing of the kind"."""

    kind: str  # "task"
    id: str  # unique in the plan: "p1.t3"; the same for the same task in every compile
    name: str
    action: str  # module name in MODULES of gpuprov/agent/modules
    args: dict[str, Any]
    position: str  # "playbooks/site.yaml:12:7"
    role: str
    tags: list[str]
    skip: str  # the controller already knows that it does not run, and why
    defer: list[str]  # which of args, environment hold templates; the host renders all of both then
    vars: dict[str, Any]  # variables of this task that deferred templates name (may be templates)
    when: list[str]  # deferred conditions; evaluated per item when there is a loop
    items: list[Item]  # loop known to the controller
    loop: str  # deferred loop: a template that gives a list
    loop_var: str  # default "item"
    index_var: str
    label: str  # deferred label template
    pause_s: float
    register: str
    changed_when: bool | list[str]
    failed_when: bool | list[str]
    until: list[str]
    retries: int
    delay_s: float
    ignore_errors: bool | str
    no_log: bool
    environment: dict[str, str]
    become: bool
    become_user: str
    notify: list[str]
    listen: list[str]  # handlers only
    check_mode: bool  # overrides the run's
    diff: bool
    timeout_s: float
    files: list[str]  # sha256 of blobs that this task may need


class BlockNode(TypedDict, total=False):
    """A block. `when` of a block is copied to its tasks by compile."""

    kind: str  # "block"
    id: str
    name: str
    position: str
    block: list[Any]  # TaskNode | BlockNode
    rescue: list[Any]
    always: list[Any]


class PlayNode(TypedDict, total=False):
    """One play of the playbook as this host runs it."""

    id: str
    name: str
    nodes: list[Any]
    handlers: list[TaskNode]  # in the order in which they run
    force_handlers: bool


class Plan(TypedDict, total=False):
    """Everything one host will do."""

    protocol: int
    run: str  # run id, safe as a file name
    host: str
    check: bool
    diff: bool
    login_user: str  # for tasks with become: false
    plays: list[PlayNode]
    vars: dict[str, Any]  # variables that deferred templates name, for all tasks (may be templates)
    blobs: dict[str, int]  # sha256 -> size in bytes of every file that may be needed
    jinja: bool  # True when something is deferred
    secrets: list[str]  # values to scrub from all output
