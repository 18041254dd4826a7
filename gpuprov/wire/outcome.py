"""What became of a task or a host: plain strings on the wire, named here."""

OK = "ok"
CHANGED = "changed"
SKIPPED = "skipped"
FAILED = "failed"
#: Check mode cannot tell, since the answer depends on an earlier change that was not made.
UNKNOWN = "unknown"
#: An action was interrupted; whether it took effect is not known, and it is never run again unasked.
LOST = "lost"
#: A failed task that a rescue or ignore_errors took care of.
IGNORED = "ignored"
#: Hosts only.
UNREACHABLE = "unreachable"
REFUSED = "refused"

TASK_OUTCOMES = (OK, CHANGED, SKIPPED, FAILED, UNKNOWN, LOST, IGNORED)

#: A check's verdict, worst last.
VERDICTS = ("pass", "skip", "warn", "unknown", "fail")
