"""One host in one run: where it stands, and the blocking work that worker threads do for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from gpuprov import bundle
from gpuprov.agent.modules import PROOFS
from gpuprov.errors import AgentError, SourceErrors
from gpuprov.fleet.session import Become, Session
from gpuprov.wire.frames import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gpuprov.fleet.options import RunOptions
    from gpuprov.report.fold import HostFold
    from gpuprov.transport.base import Connection


class State(Enum):
    """Where a host stands. The value is the word that views show."""

    WAITING = "waiting"
    CONNECTING = "connecting"
    READY = "ready"
    PARKED = "parked"
    RUNNING = "running"
    REBOOTING = "rebooting"
    RECONNECTING = "reconnecting"
    DONE = "done"


class Ways(Protocol):
    """Opens connections; transport.ssh.Ways is the real one."""

    def connect(self, target: Any) -> Connection:
        """Return an open connection. Raises TransportError; blocks."""


class Compiled(Protocol):
    """What the compiler made for one host."""

    @property
    def plan(self) -> dict[str, Any]:
        """The wire Plan."""

    @property
    def files(self) -> Mapping[str, str | bytes]:
        """Files that the plan may need: sha256 -> path here, or content."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the report."""

    @property
    def stack(self) -> Mapping[str, Any] | None:
        """The stack that fits the host; None when nothing asked."""


#: The code of the problem that a plan needs other hosts' facts, which may not be known yet.
FACTS_OF_OTHERS = "facts-of-others"


class Compiler(Protocol):
    """Turns one host's facts into its plan; compile.Compiler is the real one."""

    def learn(self, host: str, facts: dict[str, Any]) -> None:
        """Make the facts of *host* known to the plans of others."""

    def forget(self) -> None:
        """Forget all facts: no more plans are compiled."""

    def plan(self, host: str, facts: dict[str, Any]) -> Compiled:
        """Return the plan. Raises SourceErrors for what only facts could reveal, RefusedError for a refusal."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A host as the command line understood it, before any connection.

    survey asks for facts["gpuprov"]["survey"], survey_network also whether the host's package sources answer.
    """

    name: str
    target: Any
    become: Become
    python: str | None = None
    home: str | None = None
    expected_gpus: int | None = None
    login_user: str | None = None
    secrets: tuple[str, ...] = ()
    survey: bool = False
    survey_network: bool = False


@dataclass(slots=True)
class HostRun:
    """The state of one host. Owned by the consumer; a worker touches it only while it works for it."""

    prepared: Prepared
    fold: HostFold
    state: State = State.WAITING
    session: Session | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    trouble: list[dict[str, Any]] = field(default_factory=list)
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    frame: bytes = b""
    boot_id: str = ""
    reboot_boot_id: str = ""
    seek_until: float = 0.0
    retry_at: float = 0.0
    tries: int = 0
    deaths: int = 0
    secrets: list[str] = field(default_factory=list)
    busy: bool = False
    stop_wanted: bool = False
    answered: bool = False
    compiled: bool = False
    past: Iterable[dict[str, Any]] = ()
    started: float = field(default_factory=time.monotonic)
    current: str = ""

    @property
    def name(self) -> str:
        """The inventory's name."""
        return self.prepared.name

    def open(self, ways: Ways, options: RunOptions) -> Session:
        """Connect and start an agent. Raises TransportError and AgentError; blocks."""
        connection = ways.connect(self.prepared.target)
        wanted = self.prepared
        survey = {"network": True} if wanted.survey_network else wanted.survey
        session = Session(connection, wanted.become, wanted.python, wanted.home, options.timeouts, survey)
        try:
            session.start()
        except BaseException:
            session.close()
            raise
        return session

    def prepare(self, session: Session, compiler: Compiler, options: RunOptions) -> None:
        """Keep the host's facts and compile its plan from them, unless that has to wait for other hosts' facts."""
        self.facts = session.hello["facts"]
        self.trouble = list(session.hello.get("trouble", ()))
        self.boot_id = str(self.facts.get("boot_id", ""))
        compiler.learn(self.name, self.facts)
        try:
            self.compile(compiler, options)
        except SourceErrors as error:
            if any(problem.code != FACTS_OF_OTHERS for problem in error.problems):
                raise

    def compile(self, compiler: Compiler, options: RunOptions) -> None:
        """Compile the plan and encode it. CPU only, but for wheels that have to be fetched."""
        compiled = compiler.plan(self.name, self.facts)
        self.compiled = True
        plan = compiled.plan
        self.layers = layers_of(plan)
        self.files = compiled.files
        self.fold.plan(plan)
        self.fold.stack(compiled.stack or {})
        self.recall()
        for warning in compiled.warnings:
            self.fold.warn(warning)
        if self.prepared.login_user:
            plan["login_user"] = self.prepared.login_user
        if self.prepared.secrets:
            plan["secrets"] = sorted({*plan.get("secrets", ()), *self.prepared.secrets})
        self.secrets = list(plan.get("secrets", ()))
        header = {"t": "plan", "plan": plan, "layers": self.layers, "owner": options.owner, "force": options.take_over}
        self.frame = encode(header)

    def recall(self) -> None:
        """Fold what an interrupted run of the same plan is known to have done, once."""
        past, self.past = self.past, ()
        for event in past:
            self.fold.event(event)

    def start(self) -> None:
        """Send the plan. Raises SessionLost; blocks."""
        assert self.session is not None
        self.session.send_encoded(self.frame)

    def attach(self, options: RunOptions, why: str, go_on: bool) -> None:
        """Ask the host to go on with the run, and for all events that are not here yet."""
        assert self.session is not None
        self.session.send(
            {
                "t": "attach",
                "run": options.run,
                "after": self.fold.last_seq,
                "layers": self.layers,
                "owner": options.owner,
                "secrets": self.secrets,
                "why": why,
                "go_on": go_on,
            }
        )

    def send_files(self, need: list[str], layers: list[str]) -> None:
        """Send what the host asked for. Raises SessionLost, OSError, AgentError; blocks."""
        assert self.session is not None
        unknown = [sha for sha in need if sha not in self.files]
        if unknown:
            raise AgentError(
                f"the host asked for file {unknown[0][:12]}, which its plan does not name", code="protocol"
            )
        self.session.send_blobs({bundle.layer(n).sha256: bundle.layer(n).data for n in layers if n in self.layers})
        self.session.send_blobs({sha: self.files[sha] for sha in need})

    def drop_session(self) -> None:
        """Forget the session, closing it."""
        session, self.session = self.session, None
        if session is not None:
            session.close()


def layers_of(plan: dict[str, Any]) -> dict[str, str]:
    """Return the optional layers that *plan* needs: name -> sha256."""
    layers = {}
    if plan.get("jinja"):
        layers["jinja"] = bundle.layer("jinja").sha256
    if any(_has_proof(play["nodes"]) for play in plan["plays"]):
        layers["proof"] = bundle.layer("proof").sha256
    return layers


def _has_proof(nodes: list[dict[str, Any]]) -> bool:
    for node in nodes:
        if node.get("kind") == "block":
            if any(_has_proof(node.get(part, [])) for part in ("block", "rescue", "always")):
                return True
        elif node.get("action") in PROOFS:
            return True
    return False
