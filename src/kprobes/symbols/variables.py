"""Where global variables lie: in a kernel by kallsyms, in a program by the symbols of its file."""

from __future__ import annotations

from kprobes.errors import AmbiguousSymbolError, SymbolNotFoundError, UnsupportedError, UsageError
from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.model.plan import Site
    from kprobes.symbols.kallsyms import Kallsyms

# Types of well-known variables: BTF tells those of per-CPU variables alone, and before pahole 1.17 none.
KNOWN = {
    "init_mm": "struct mm_struct",
    "init_net": "struct net",
    "init_pid_ns": "struct pid_namespace",
    "init_task": "struct task_struct",
    "init_user_ns": "struct user_namespace",
    "init_uts_ns": "struct uts_namespace",
    "jiffies": "unsigned long",
    "jiffies_64": "u64",
    "max_pfn": "unsigned long",
    "nr_cpu_ids": "unsigned int",
    "nr_threads": "int",
    "panic_on_oops": "int",
    "panic_timeout": "int",
    "system_state": "enum system_states",
    "total_forks": "unsigned long",
    # per-CPU
    "cpu_number": "int",
    "current_task": "struct task_struct *",
    "irq_stat": "irq_cpustat_t",
    "kernel_cpustat": "struct kernel_cpustat",
    "kstat": "struct kernel_stat",
    "process_counts": "unsigned long",
    "runqueues": "struct rq",
    "softnet_data": "struct softnet_data",
    "this_cpu_off": "unsigned long",
    "vm_event_states": "struct vm_event_state",
}


@dataclass(frozen=True, slots=True)
class VariablePlace:
    """An address; with *relative* it is to be added to that of the probed instruction."""

    address: int
    relative: bool = False


class KernelVariables:
    """The variables of a kernel; *table* gives its symbols when they are first asked for."""

    def __init__(self, table: Callable[[], Kallsyms]) -> None:
        self._table = table

    def find(self, name: str) -> VariablePlace:
        """Return where the symbol *name* (`name` or `module:name`) lies.

        Raises:
            SymbolNotFoundError, AmbiguousSymbolError: there is none, or several.
            UnsupportedError: addresses are hidden.
        """
        table = self._table()
        found = {symbol.address: symbol for symbol in table.lookup(name)}
        if not found:
            raise SymbolNotFoundError(name, nearest=table.nearest(name), where="the kernel", thing="symbol")
        if table.hidden:
            raise UnsupportedError("kernel addresses are hidden from you", hint="run as root")
        if len(found) > 1:
            spellings = tuple(symbol.spelling for symbol in found.values() if symbol.module)
            raise AmbiguousSymbolError(name, spellings or tuple(hex(address) for address in found))
        return VariablePlace(next(iter(found)))


class FileVariables:
    """The variables of the program or library that *sites* probe, by their distance from the one probed place."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self._sites = sites

    def find(self, name: str) -> VariablePlace:
        """Return how far the variable *name* lies from the probed instruction.

        Raises:
            SymbolNotFoundError: there is none.
            UsageError: several places are probed, or each thread has its own.
        """
        from kprobes.symbols.elf import ElfFile
        from kprobes.symbols.elf_symbols import ElfSymbols

        if len(self._sites) != 1 or not self._sites[0].path:
            raise UsageError(
                f"where {name!r} lies can be told from one probed place only",
                hint="give this handler a single place of a single file",
            )
        site = self._sites[0]
        with ElfFile(site.path) as elf:
            found = ElfSymbols(elf).variables(name)
            start = elf.address_of(site.address)
        if not found or start is None:
            hint = "variables are those of the probed object; a stripped file has only those it exports"
            raise SymbolNotFoundError(name, where=site.path, hint=hint, thing="variable")
        if len({one.address for one in found}) > 1:
            raise AmbiguousSymbolError(name, tuple(hex(one.address) for one in found))
        if found[0].is_thread_local:
            raise UsageError(f"each thread has a {name!r} of its own", hint="variables of threads can't be read")
        return VariablePlace(found[0].address - start - site.offset, relative=True)
