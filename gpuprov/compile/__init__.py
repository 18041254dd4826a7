"""Values and facts to plans: variable precedence, templating, and what has to wait for the host."""

from gpuprov.compile.analyse import analyse
from gpuprov.compile.compiler import Compiled, Compiler
from gpuprov.compile.magic import FACTS_OF_OTHERS

__all__ = ["FACTS_OF_OTHERS", "Compiled", "Compiler", "analyse"]
